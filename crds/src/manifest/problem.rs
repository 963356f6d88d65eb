//! What is wrong with a manifest: where, with what, and what was expected.

use std::{fmt, path::PathBuf};

use thiserror::Error;

use crate::{
    names::{Dangling, NameTaken},
    rule::RuleError,
};

/// Everything that is wrong, in the order of files and lines. Never empty when returned as an error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (&a.file, a.line, &a.path).cmp(&(&b.file, b.line, &b.path)));
        problems.dedup();
        Self(problems)
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is wrong after all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong. Shown as `file:line: Kind name: field.path: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The manifest.
    pub file: PathBuf,
    /// Counted from 1; 0 when the file as a whole is meant.
    pub line: u32,
    /// `Kind name`, as far as known.
    pub object: String,
    /// Such as `spec.rules[2].when`; empty when the object as a whole is meant.
    pub path: String,
    /// What was wrong, and what was expected.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        for part in [&self.object, &self.path] {
            if !part.is_empty() {
                write!(f, " {part}:")?;
            }
        }
        write!(f, " {}", self.fault)
    }
}

/// What kind of wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The file or folder cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// No object anywhere.
    #[error("holds no manifest; expected *.yaml or *.yml files with objects of slmswarm.io/v1alpha1")]
    Empty,
    /// Not YAML, or YAML that manifests do not use.
    #[error("{0}")]
    Yaml(String),
    /// A kind or apiVersion that is not ours.
    #[error("{0}")]
    UnknownKind(String),
    /// A field that does not exist.
    #[error("unknown field{suggestion} Expected {expected}")]
    UnknownField {
        /// The end of the first sentence.
        suggestion: String,
        /// The fields there are.
        expected: String,
    },
    /// A field that has to be there.
    #[error("missing; expected {0}")]
    Missing(String),
    /// A value of another type, outside its range or not among the values there are.
    #[error("expected {expected}, found {found}{suggestion}")]
    WrongValue {
        /// In words.
        expected: String,
        /// As written.
        found: String,
        /// The end of the sentence.
        suggestion: String,
    },
    /// A validation rule of the schema does not hold.
    #[error("{0}")]
    Invalid(String),
    /// A `when` that is no rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A name that two objects have.
    #[error(transparent)]
    NameTaken(#[from] NameTaken),
    /// A reference to nothing.
    #[error(transparent)]
    Dangling(#[from] Dangling),
    /// Objects of several namespaces.
    #[error("namespace `{found}` differs from `{first}` of {other}; one swarm serves one namespace")]
    Namespaces {
        /// Here.
        found: String,
        /// Before.
        first: String,
        /// `Kind name`.
        other: String,
    },
    /// More adapters than their model has room for.
    #[error("SlmModel `{model}` has {slots} adapter slots and this is adapter {count}; raise its spec.adapters.slots")]
    NoSlot {
        /// The model.
        model: String,
        /// Its slots.
        slots: u32,
        /// Counting from 1 in file order.
        count: u32,
    },
}

//! Problems of manifests: location, problem and expectation.

use std::{fmt, path::PathBuf};

use thiserror::Error;

use crate::{
    names::{Dangling, NameTaken},
    rule::RuleError,
    selection::Unfit,
};

/// All problems, in the order of files and lines. Never empty when returned as an error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (&a.file, a.line, &a.path).cmp(&(&b.file, b.line, &b.path)));
        problems.dedup();
        Self(problems)
    }

    /// Iterates over the problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Number of problems.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no problem.
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

/// One problem. Shown as `file:line: Kind name: field.path: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the manifest.
    pub file: PathBuf,
    /// Line from 1; 0 for the whole file.
    pub line: u32,
    /// `Kind name`, if known.
    pub object: String,
    /// Field path such as `spec.rules[2].when`; empty for the whole object.
    pub path: String,
    /// The problem and the expectation.
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

/// Kind of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The file or folder cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// No object in any file.
    #[error("holds no manifest; expected *.yaml or *.yml files with objects of slmswarm.io/v1alpha1")]
    Empty,
    /// Invalid YAML, or YAML features that manifests do not support.
    #[error("{0}")]
    Yaml(String),
    /// An unknown kind or apiVersion.
    #[error("{0}")]
    UnknownKind(String),
    /// An unknown field.
    #[error("unknown field{suggestion} Expected {expected}")]
    UnknownField {
        /// "Did you mean", or the end of the sentence.
        suggestion: String,
        /// Known fields.
        expected: String,
    },
    /// A missing required field.
    #[error("missing; expected {0}")]
    Missing(String),
    /// A value of the wrong type, out of range, or not among the allowed ones.
    #[error("expected {expected}, found {found}{suggestion}")]
    WrongValue {
        /// Description of allowed values.
        expected: String,
        /// Value in the manifest.
        found: String,
        /// "Did you mean", or the end of the sentence.
        suggestion: String,
    },
    /// A violated validation rule of the schema.
    #[error("{0}")]
    Invalid(String),
    /// An invalid `when`.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A name that two objects claim.
    #[error(transparent)]
    NameTaken(#[from] NameTaken),
    /// A dangling reference.
    #[error(transparent)]
    Dangling(#[from] Dangling),
    /// A reference to an object that does not serve its purpose.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Objects in several namespaces.
    #[error("namespace `{found}` differs from `{first}` of {other}; one swarm serves one namespace")]
    Namespaces {
        /// Namespace of this object.
        found: String,
        /// Namespace of earlier objects.
        first: String,
        /// `Kind name` of an earlier object.
        other: String,
    },
    /// A model without a slot for an adapter, beside those that are pinned.
    #[error(
        "SlmModel `{model}` has {slots} adapter slots, and {pinned} other adapters are pinned to theirs: none is left for this one; \
         raise its spec.adapters.slots, or pin fewer"
    )]
    NoSlot {
        /// Name of the model.
        model: String,
        /// Number of slots.
        slots: u32,
        /// Number of other adapters of the model that are pinned.
        pinned: u32,
    },
}

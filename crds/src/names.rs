//! The one space of names that models, adapters and routes share, and references into it. A folder of manifests and a
//! cluster find the same faults in it, in the same words.

use thiserror::Error;

use crate::{
    nearest::{did_you_mean, nearest},
    route::TargetKind,
};

/// The names that references may lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Of base models.
    pub models: Vec<String>,
    /// Of adapters.
    pub adapters: Vec<String>,
}

/// A reference to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no {kind} is named `{name}`{suggestion}")]
pub struct Dangling {
    /// What was looked for.
    kind: TargetKind,
    /// By which name.
    name: String,
    /// The end of the sentence.
    suggestion: String,
}

/// A name that two objects have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the name `{name}` is taken by the {other}; models, adapters and routes share one space of names")]
pub struct NameTaken {
    /// The name.
    pub name: String,
    /// Kind of the object that has it, and where that is written, if it is.
    pub other: String,
}

impl Known {
    fn of(&self, kind: TargetKind) -> &[String] {
        match kind {
            TargetKind::SlmModel => &self.models,
            TargetKind::LoraAdapter => &self.adapters,
        }
    }

    /// What is wrong with a reference to `kind` `name`, if that is not there.
    #[must_use]
    pub fn dangling(&self, kind: TargetKind, name: &str) -> Option<Dangling> {
        if self.of(kind).iter().any(|known| known == name) {
            return None;
        }
        let other = match kind {
            TargetKind::SlmModel => TargetKind::LoraAdapter,
            TargetKind::LoraAdapter => TargetKind::SlmModel,
        };
        let suggestion = if self.of(other).iter().any(|known| known == name) {
            format!("; it is a {other}")
        } else {
            did_you_mean(&nearest(name, self.of(kind).iter().map(String::as_str)))
        };
        Some(Dangling { kind, name: name.to_owned(), suggestion })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_nothing_are_told_from_misspelled_ones() {
        let known = Known { models: vec!["smol".to_owned()], adapters: vec!["banking".to_owned()] };
        let said = |kind, name| known.dangling(kind, name).map(|fault| fault.to_string());
        assert_eq!(said(TargetKind::SlmModel, "smol"), None);
        let cases = [
            (TargetKind::SlmModel, "smoll", "no SlmModel is named `smoll`; did you mean `smol`?"),
            (TargetKind::SlmModel, "banking", "no SlmModel is named `banking`; it is a LoraAdapter"),
            (TargetKind::LoraAdapter, "zzz", "no LoraAdapter is named `zzz`"),
        ];
        for (kind, name, words) in cases {
            assert_eq!(said(kind, name).as_deref(), Some(words));
        }
    }
}

//! What a request's redaction is to its answer: placeholders out, values in, in each of the texts that arrive in pieces.

use std::sync::Arc;

use slm_redact::{Restorer, Vault};

use crate::body::Texts;

/// Texts on their way out.
#[derive(Debug)]
pub(crate) enum Leaving {
    AsTheyAre,
    Redacted(Box<Vault>),
}

impl Texts for Leaving {
    fn text(&mut self, text: &str) -> String {
        match self {
            Self::AsTheyAre => text.to_owned(),
            Self::Redacted(vault) => vault.redact(text).into_owned(),
        }
    }

    fn json(&mut self, text: &str) -> String {
        match self {
            Self::AsTheyAre => text.to_owned(),
            Self::Redacted(vault) => vault.redact_json_text(text).into_owned(),
        }
    }
}

/// Texts on their way back.
#[derive(Debug, Default)]
pub(crate) struct Restoring {
    vault: Option<Arc<Vault>>,
    text: Option<Restorer>,
    reasoning: Option<Restorer>,
    /// Of each call, by its index.
    arguments: Vec<(u32, Restorer)>,
}

impl From<Leaving> for Restoring {
    fn from(leaving: Leaving) -> Self {
        let vault = match leaving {
            Leaving::AsTheyAre => return Self::default(),
            Leaving::Redacted(vault) => Arc::new(*vault),
        };
        let text = || Some(Restorer::text(Arc::clone(&vault)));
        Self { text: text(), reasoning: text(), arguments: Vec::new(), vault: Some(vault) }
    }
}

impl Restoring {
    /// What was replaced, if anything was to be.
    pub(crate) fn vault(&self) -> Option<&Vault> {
        self.vault.as_deref()
    }

    pub(crate) fn text(&mut self, piece: &str) -> String {
        push(self.text.as_mut(), piece)
    }

    pub(crate) fn reasoning(&mut self, piece: &str) -> String {
        push(self.reasoning.as_mut(), piece)
    }

    /// A piece of the arguments of call `index`, which are JSON.
    pub(crate) fn arguments(&mut self, index: u32, piece: &str) -> String {
        let Some(vault) = &self.vault else { return piece.to_owned() };
        let place = self.arguments.iter().position(|(known, _)| *known == index).unwrap_or_else(|| {
            self.arguments.push((index, Restorer::json(Arc::clone(vault))));
            self.arguments.len() - 1
        });
        self.arguments[place].1.push(piece)
    }

    /// What was held back of the arguments of calls.
    pub(crate) fn end_calls(&mut self) -> Vec<(u32, String)> {
        let rests = self.arguments.drain(..).map(|(index, restorer)| (index, restorer.finish()));
        rests.filter(|(_, rest)| !rest.is_empty()).collect()
    }

    /// What was held back of text and reasoning.
    pub(crate) fn end_texts(&mut self) -> (String, String) {
        let end = |restorer: &mut Option<Restorer>| restorer.take().map_or_else(String::new, Restorer::finish);
        (end(&mut self.text), end(&mut self.reasoning))
    }
}

fn push(restorer: Option<&mut Restorer>, piece: &str) -> String {
    match restorer {
        Some(restorer) if !piece.is_empty() => restorer.push(piece),
        _ => piece.to_owned(),
    }
}

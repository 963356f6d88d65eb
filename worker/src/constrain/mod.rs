//! Constrained answers: a JSON Schema, a regular expression, a grammar or a list of strings decides which tokens may come next.
//!
//! A request's [`Rule`] is compiled once to a [`Prototype`] ([`Constraints::compile`], on the threads for expensive requests) and kept
//! in a bounded cache. Each answer has a [`Guide`] made of it, which says what may follow while the model computes the step.

mod cache;
mod compile;
mod error;
mod guide;
mod rule;
mod schema;
mod vocabulary;

use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;

use crate::text::TokenBytes;

pub use error::{ConstraintError, ConstraintFailure};
pub use guide::{Guide, Next};
pub use rule::Rule;

use cache::Cache;
pub use compile::Prototype;
pub(crate) use compile::with_bounded_space;
pub use rule::ToolsRule;
pub(crate) use schema::check as checked_schema;

/// Compiles the rules of one model's requests.
#[derive(Debug)]
pub struct Constraints {
    bytes: Arc<TokenBytes>,
    /// Length of a row of logits.
    vocab_size: usize,
    /// Made for the first constrained request: a search tree over the vocabulary takes a while.
    factory: OnceLock<Result<Factory, String>>,
    cache: Cache,
}

struct Factory(ParserFactory);

impl std::fmt::Debug for Factory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Factory").finish_non_exhaustive()
    }
}

impl Constraints {
    /// For answers made of these tokens, of which a row of logits has the first `vocab_size`.
    #[must_use]
    pub fn new(bytes: Arc<TokenBytes>, vocab_size: usize) -> Self {
        Self { bytes, vocab_size, factory: OnceLock::new(), cache: Cache::default() }
    }

    /// A rule that was compiled before, or refused.
    pub fn known(&self, rule: &Rule) -> Option<Result<Arc<Prototype>, ConstraintError>> {
        self.cache.get(rule)
    }

    /// Compiles a rule. Takes up to seconds.
    ///
    /// # Errors
    /// The rule is wrong, too complex, or not supported.
    pub fn compile(&self, rule: &Rule) -> Result<Arc<Prototype>, ConstraintError> {
        self.cache.get_or_make(rule, || {
            let factory = self.factory.get_or_init(|| vocabulary::factory(&self.bytes, self.vocab_size).map(Factory));
            let Factory(factory) = factory.as_ref().map_err(|why| ConstraintError::vocabulary(rule, why))?;
            compile::compile(rule, factory)
        })
    }
}

#[cfg(test)]
mod tests;

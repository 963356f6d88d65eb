//! Limits of a token, as the list of tokens says them.

use std::sync::Arc;

use crate::access::table::Pattern;

/// Limits of requests. Unset: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateLimits {
    pub(crate) requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers together.
    pub(crate) tokens_per_minute: Option<u32>,
    pub(crate) concurrent_requests: Option<u32>,
    /// The longest answer that a request may ask for, and gets if it does not ask.
    pub(crate) max_tokens: Option<u32>,
}

/// Limits of requests to some models, adapters or routes.
#[derive(Clone, Debug)]
pub(crate) struct ModelLimits {
    /// Their names, as the list says them.
    pub(crate) shown: Arc<str>,
    pub(crate) names: Pattern,
    pub(crate) limits: RateLimits,
}

/// All limits of a token.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallerLimits {
    /// Of all its requests.
    pub(crate) all: RateLimits,
    pub(crate) models: Vec<ModelLimits>,
}

impl CallerLimits {
    /// Number of limits: that of all requests, and those for models.
    pub(super) fn len(&self) -> usize {
        1 + self.models.len()
    }

    pub(super) fn get(&self, scope: usize) -> Option<&RateLimits> {
        match scope.checked_sub(1) {
            None => Some(&self.all),
            Some(model) => self.models.get(model).map(|model| &model.limits),
        }
    }

    /// Names that the limit is for; `None` for all.
    pub(super) fn models(&self, scope: usize) -> Option<Arc<str>> {
        scope.checked_sub(1).and_then(|model| self.models.get(model)).map(|model| Arc::clone(&model.shown))
    }

    /// The limits that concern a request to `name`, by their number.
    pub(super) fn concerning(&self, name: &str) -> impl Iterator<Item = usize> {
        let all = std::iter::once(0).filter(|_| self.all != RateLimits::default());
        let models = self.models.iter().zip(1..).filter(|(model, _)| model.names.matches(name));
        all.chain(models.map(|(_, scope)| scope))
    }

    /// The longest answer to a request to `name`.
    pub(crate) fn max_tokens(&self, name: &str) -> Option<u32> {
        self.concerning(name).filter_map(|scope| self.get(scope)?.max_tokens).min()
    }
}

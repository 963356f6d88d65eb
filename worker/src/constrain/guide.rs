//! The guide of one answer: which tokens may follow.

use std::sync::Arc;

use llguidance::{Matcher, api::StopReason};

use super::{ConstraintFailure, Prototype, error::foreign};
use crate::sample::Mask;

/// What may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// One of these tokens.
    Tokens(Mask),
    /// Nothing: the answer is complete.
    End,
}

/// The state of one answer.
pub struct Guide {
    matcher: Matcher,
    prototype: Arc<Prototype>,
    /// Tokens that end the answer, and may only where it is complete.
    stops: Box<[u32]>,
    /// Drafted tokens that the matcher was given, and that are not sampled yet.
    ahead: usize,
}

impl std::fmt::Debug for Guide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guide").field("ahead", &self.ahead).finish_non_exhaustive()
    }
}

impl Guide {
    pub(super) fn new(matcher: Matcher, prototype: Arc<Prototype>, stops: &[u32]) -> Self {
        Self { matcher, prototype, stops: stops.into(), ahead: 0 }
    }

    /// How many tokens of `draft` may follow, one after another. A token that ends the answer is none of them.
    pub fn admits(&mut self, draft: &[u32]) -> usize {
        let text = draft.iter().position(|token| self.stops.contains(token)).unwrap_or(draft.len());
        // One that fails here fails again when it looks ahead.
        self.matcher.validate_tokens(&draft[..text]).unwrap_or(0)
    }

    /// What may follow, and what may follow each token of `draft`, which it admits. Ends where the answer is complete.
    ///
    /// # Errors
    /// No token may follow, or the rule is too complex.
    pub fn look_ahead(&mut self, draft: &[u32]) -> Result<Vec<Next>, ConstraintFailure> {
        let mut seen = vec![self.next()?];
        for &token in draft {
            if seen.last() == Some(&Next::End) {
                break;
            }
            self.consume(token)?;
            self.ahead += 1;
            seen.push(self.next()?);
        }
        Ok(seen)
    }

    /// Takes `right` tokens of the draft that it looked ahead for, and `sampled` after them. Whether the answer is complete.
    ///
    /// # Errors
    /// The rule is too complex.
    pub fn take(&mut self, right: usize, sampled: u32) -> Result<bool, ConstraintFailure> {
        let wrong = self.ahead.saturating_sub(right);
        self.ahead = 0;
        self.matcher.rollback(wrong).map_err(|error| self.failure(&error.to_string()))?;
        self.consume(sampled)?;
        Ok(self.is_complete())
    }

    fn is_complete(&self) -> bool {
        matches!(self.matcher.stop_reason(), StopReason::NoExtension | StopReason::NoExtensionBias)
    }

    fn next(&mut self) -> Result<Next, ConstraintFailure> {
        if self.is_complete() {
            return Ok(Next::End);
        }
        let allowed = self.matcher.compute_mask().map_err(|error| self.failure(&error.to_string()))?;
        // The last token stands for the end.
        let end = allowed.len().saturating_sub(1) as u32;
        let complete = allowed.is_allowed(end);
        let mut mask = Mask::new(allowed.as_slice());
        mask.set(end, false);
        if complete && mask.is_empty() {
            return Ok(Next::End);
        }
        self.stops.iter().for_each(|&stop| mask.set(stop, complete));
        if mask.is_empty() { Err(self.dead_end()) } else { Ok(Next::Tokens(mask)) }
    }

    fn consume(&mut self, token: u32) -> Result<(), ConstraintFailure> {
        self.matcher.consume_token(token).map_err(|error| self.failure(&error.to_string()))
    }

    fn dead_end(&self) -> ConstraintFailure {
        ConstraintFailure::DeadEnd { field: self.prototype.field() }
    }

    fn failure(&self, error: &str) -> ConstraintFailure {
        if error.contains("NoExtension") {
            return self.dead_end();
        }
        // Other answers share what its lexer learnt.
        self.prototype.spoil();
        ConstraintFailure::Parser { field: self.prototype.field(), why: foreign(error) }
    }
}

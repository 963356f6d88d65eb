//! One request while it is in the cache.

use std::time::Instant;

use super::{Event, FinishReason, StepFailure, Submitted};
use crate::{runtime::DecodeRow, sample::Sampler};

pub(super) struct Sequence {
    submitted: Submitted,
    sampler: Sampler,
    /// Tokens in the cache.
    pub(super) past: usize,
    /// The last token chosen, not in the cache yet.
    next: u32,
    generated: usize,
}

/// Whether a sequence goes on after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Goes,
    Ended,
}

impl Sequence {
    pub(super) fn new(submitted: Submitted) -> Self {
        let sampler = Sampler::new(submitted.job.sampling.clone(), &submitted.job.prompt);
        Self { submitted, sampler, past: 0, next: 0, generated: 0 }
    }

    /// Prompt tokens that are not in the cache yet.
    pub(super) fn prompt_left(&self) -> &[u32] {
        &self.submitted.job.prompt[self.past.min(self.submitted.job.prompt.len())..]
    }

    /// Slot of its adapter in the table.
    pub(super) fn adapter(&self) -> Option<usize> {
        self.submitted.job.adapter.as_ref().map(|lease| lease.slot())
    }

    /// Its part of the next decoding step.
    pub(super) fn row(&self) -> DecodeRow {
        DecodeRow { token: self.next, past: self.past, adapter: self.adapter() }
    }

    /// Chooses from `logits` and tells the caller.
    pub(super) fn advance(&mut self, logits: &[f32]) -> Progress {
        let (id, logprobs) = match self.sampler.sample(logits) {
            Ok(sampled) => sampled,
            Err(error) => return self.fail(error.into()),
        };
        self.generated += 1;
        self.next = id;
        if self.submitted.job.stop_ids.contains(&id) {
            return self.finish(FinishReason::Stop);
        }
        self.send(Event::Token { id, logprobs });
        if self.generated == self.submitted.job.tokens_max {
            return self.finish(FinishReason::Length);
        }
        Progress::Goes
    }

    pub(super) fn fail(&mut self, failure: StepFailure) -> Progress {
        self.send(Event::Failed(failure));
        Progress::Ended
    }

    fn finish(&mut self, reason: FinishReason) -> Progress {
        self.send(Event::Finished { reason, generated: self.generated });
        Progress::Ended
    }

    fn send(&self, event: Event) {
        // The channel has room for the whole answer, so this only fails when the caller is gone, which the next
        // look at `abandoned` sees.
        let _ = self.submitted.events.try_send(event);
    }
}

impl Submitted {
    /// The caller left, or its deadline passed, of which it is told.
    pub(super) fn abandoned(&self, now: Instant) -> bool {
        if self.events.is_closed() {
            return true;
        }
        let late = self.job.deadline.is_some_and(|deadline| deadline <= now);
        if late {
            let _ = self.events.try_send(Event::Failed(StepFailure::Deadline));
        }
        late
    }
}

impl Sequence {
    /// See [`Submitted::abandoned`].
    pub(super) fn abandoned(&self, now: Instant) -> bool {
        self.submitted.abandoned(now)
    }
}

//! A sequence: an admitted request with its pages.

use std::{ops::Range, rc::Rc, time::Instant};

use super::{
    Event, FinishReason, StepFailure, Submitted,
    ahead::{Look, Seen},
    cache::{KvCache, Origin, OutOfPages, Table},
    draft::{self, Record},
    queue::{Account, Waiting},
    schedule::Demand,
    states::State,
};
use crate::{
    constrain::{ConstraintFailure, Guide, Next},
    runtime::{Backend, Chunk, LogitsRequest, SessionError, Top},
    sample::{Mask, Sampler},
};

pub(super) struct Sequence {
    submitted: Submitted,
    account: Rc<Account>,
    sampler: Sampler,
    /// Whether the answer is constrained.
    constrained: bool,
    /// Its guide, except during a step.
    guide: Option<Guide>,
    /// What the guide allows after the step's tokens.
    next: Result<Vec<Next>, ConstraintFailure>,
    table: Table,
    state: State,
    /// Prompt, generated tokens, and draft.
    tokens: Vec<u32>,
    prompt: usize,
    /// Length of the draft.
    drafted: usize,
    record: Record,
    /// Prompt tokens found in the prefix cache.
    found: usize,
    /// Tokens whose keys and values are computed.
    past: usize,
    /// Shares of the KV cache that it keeps from others: the least that a step is charged.
    shares: usize,
}

/// Rows of logits of a step, which sequences take in their order.
pub(super) struct Rows<'a> {
    backend: &'a mut dyn Backend,
    next: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(backend: &'a mut dyn Backend) -> Self {
        Self { backend, next: 0 }
    }

    /// Indices of the next `count` rows.
    fn take(&mut self, count: usize) -> Range<usize> {
        let first = self.next;
        self.next += count;
        first..self.next
    }

    fn top(&self, row: usize) -> Option<Top<'_>> {
        self.backend.top(row)
    }

    fn row(&mut self, row: usize) -> Result<&[f32], SessionError> {
        self.backend.row(row)
    }
}

/// A drafted token.
#[derive(Debug, Clone, Copy)]
struct Guess {
    /// `None` after the draft.
    token: Option<u32>,
    /// Drafted tokens before it, all sampled.
    right: usize,
    /// Whether a constraint allows nothing after it.
    ends: bool,
}

/// State of a sequence after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Goes,
    Ended,
}

impl Sequence {
    /// Pages for the whole request, if available now.
    pub(super) fn room(waiting: &Waiting, cache: &mut KvCache) -> Option<Table> {
        let job = &waiting.submitted.job;
        let adapter = job.adapter.as_ref().map(|lease| (lease.info.digest.as_str().into(), lease.info.scale.to_bits()));
        let tenant = waiting.submitted.seat.0.tenant().clone();
        cache.open(Origin { tenant, adapter }, &job.prompt, job.prompt.len() + job.tokens_max)
    }

    /// One of at most `sequences_max` that share the pages of `cache`.
    pub(super) fn new(waiting: Waiting, (table, state): (Table, State), cache: &KvCache, sequences_max: usize) -> Self {
        let Waiting { mut submitted, account } = waiting;
        let tokens = std::mem::take(&mut submitted.job.prompt);
        let sampler = Sampler::new(submitted.job.sampling.clone(), &tokens);
        let found = table.shared();
        let prompt = tokens.len();
        let record = Record::new();
        let shares = cache.shares(&table, sequences_max);
        let guide = submitted.job.guide.take();
        Self {
            submitted,
            account,
            sampler,
            constrained: guide.is_some(),
            guide,
            next: Err(ConstraintFailure::Stopped),
            table,
            state,
            tokens,
            prompt,
            drafted: 0,
            record,
            found,
            past: found,
            shares,
        }
    }

    pub(super) fn demand(&self) -> Demand {
        Demand { left: self.known() - self.past, priority: self.submitted.job.priority }
    }

    /// Whether it decodes, that is, needs one token a step.
    pub(super) fn generates(&self) -> bool {
        self.known() > self.prompt
    }

    /// Number of tokens without the draft.
    fn known(&self) -> usize {
        self.tokens.len() - self.drafted
    }

    /// Drafts tokens after the next one; gives its statistics and the draft's length.
    pub(super) fn draft(&mut self) -> (Record, usize) {
        if self.generates() {
            // A fully accepted draft is followed by one more token.
            let most = self.submitted.job.tokens_max - self.generated() - 1;
            let mut draft = draft::propose(&self.tokens, most, &mut self.record);
            if self.constrained {
                draft.truncate(self.guide.as_mut().map_or(0, |guide| guide.admits(&draft)));
            }
            self.drafted = draft.len();
            self.tokens.extend(draft);
        }
        (self.record, self.drafted)
    }

    /// Length of the draft.
    pub(super) fn drafted(&self) -> usize {
        self.drafted
    }

    /// Truncates the draft.
    pub(super) fn cut_draft(&mut self, length: usize) {
        self.tokens.truncate(self.known() + length);
        self.drafted = length;
    }

    /// Prompt tokens that are not computed yet.
    pub(super) fn prompt_left(&self) -> usize {
        self.prompt.saturating_sub(self.past)
    }

    /// Computed tokens.
    pub(super) fn past(&self) -> usize {
        self.past
    }

    /// Reuses prompt pages that other sequences have computed since the last step.
    pub(super) fn follow(&mut self, cache: &mut KvCache) {
        if self.past < self.prompt {
            cache.follow(&mut self.table, &self.tokens[..self.prompt]);
            let found = self.table.shared().saturating_sub(self.past);
            self.found += found;
            self.past += found;
        }
    }

    /// Allocates pages for `scheduled` more tokens.
    pub(super) fn grow(&mut self, cache: &mut KvCache, scheduled: usize) -> Result<(), OutOfPages> {
        cache.grow(&mut self.table, self.past + scheduled + self.drafted)
    }

    /// Its chunk of a step: `scheduled` tokens and the draft.
    pub(super) fn chunk(&self, scheduled: usize) -> Chunk<'_> {
        let end = self.past + scheduled + self.drafted;
        Chunk {
            tokens: &self.tokens[self.past..end],
            past: self.past,
            pages: self.table.pages(),
            state: self.state.slot(),
            // Any token may be the only one that a constraint allows.
            candidates: self.sampler.candidates().filter(|_| !self.constrained),
            adapter: self.submitted.job.adapter.as_ref().map(|lease| lease.slot()),
            logits: match self.drafted {
                _ if !self.samples(scheduled) => LogitsRequest::Nothing,
                0 => LogitsRequest::Last,
                _ => LogitsRequest::All,
            },
        }
    }

    /// Whether a token is sampled after a step of `scheduled` tokens.
    fn samples(&self, scheduled: usize) -> bool {
        scheduled > 0 && self.past + scheduled >= self.known()
    }

    /// What its guide has to find out while such a step runs.
    pub(super) fn look(&mut self, place: usize, scheduled: usize) -> Option<Look> {
        if !self.samples(scheduled) {
            return None;
        }
        let guide = self.guide.take()?;
        self.next = Err(ConstraintFailure::Stopped);
        Some(Look { place, guide, draft: self.tokens[self.known()..].to_vec() })
    }

    /// What its guide found out.
    pub(super) fn saw(&mut self, seen: Seen) {
        self.guide = Some(seen.guide);
        self.next = seen.next;
    }

    /// Advances by `scheduled` computed tokens. Samples from the next of `rows`, those after the last of them and after each
    /// drafted token, until the draft is rejected, and sends the tokens. Gives the number of sampled tokens.
    pub(super) fn took(&mut self, scheduled: usize, rows: &mut Rows<'_>, cache: &mut KvCache) -> (Progress, usize) {
        self.past += scheduled;
        self.account.charge(scheduled.max(self.shares));
        if self.past < self.known() {
            cache.publish(&mut self.table, &self.tokens[..self.past]);
            return (Progress::Goes, 0);
        }
        let draft = self.tokens.split_off(self.known());
        self.drafted = 0;
        let next = std::mem::replace(&mut self.next, Err(ConstraintFailure::Stopped));
        let own = rows.take(draft.len() + 1);
        let (mut progress, mut chosen, mut right) = (Progress::Goes, 0_usize, 0_usize);
        for row in own {
            let mask = match self.allowed(&next, right) {
                Ok(Some(Next::Tokens(mask))) => Some(mask),
                Ok(None) => None,
                Ok(Some(Next::End)) => {
                    self.tell_read();
                    progress = self.finish(FinishReason::Stop);
                    break;
                }
                Err(failure) => {
                    progress = self.fail(failure.into());
                    break;
                }
            };
            let guess = Guess { token: draft.get(right).copied(), right, ends: ends(&next, right + 1) };
            progress = self.advance(rows, row, mask, guess);
            chosen += 1;
            if progress == Progress::Ended || guess.token.is_none() || guess.token != self.tokens.last().copied() {
                break;
            }
            self.past += 1;
            right += 1;
        }
        self.record.observe(draft.len(), right);
        cache.publish(&mut self.table, &self.tokens[..self.past]);
        (progress, chosen)
    }

    /// What a constraint allows after `right` tokens of the draft; `None` without a constraint.
    fn allowed<'n>(
        &self,
        next: &'n Result<Vec<Next>, ConstraintFailure>,
        right: usize,
    ) -> Result<Option<&'n Next>, ConstraintFailure> {
        if !self.constrained {
            return Ok(None);
        }
        let next = next.as_ref().map_err(Clone::clone)?;
        next.get(right).map(Some).ok_or(ConstraintFailure::Stopped)
    }

    /// Samples from one row of logits and sends the token.
    fn advance(&mut self, rows: &mut Rows<'_>, row: usize, mask: Option<&Mask>, guess: Guess) -> Progress {
        let top = rows.top(row).filter(|_| mask.is_none());
        let sampled = match top.and_then(|top| self.sampler.sample_top(&top)) {
            Some(sampled) => sampled,
            None => match rows.row(row) {
                Ok(logits) => self.sampler.sample(logits, mask),
                Err(error) => return self.fail(StepFailure::Session(error.to_string())),
            },
        };
        let (id, logprobs) = match sampled {
            Ok(sampled) => sampled,
            Err(error) => return self.fail(error.into()),
        };
        self.tell_read();
        self.tokens.push(id);
        if self.submitted.job.stop_ids.contains(&id) {
            self.send(Event::End { id, logprobs });
            return self.finish(FinishReason::Stop);
        }
        self.send(Event::Token { id, logprobs });
        match self.completes(id, guess) {
            Ok(true) => self.finish(FinishReason::Stop),
            Ok(false) if self.generated() == self.submitted.job.tokens_max => self.finish(FinishReason::Length),
            Ok(false) => Progress::Goes,
            Err(failure) => self.fail(failure.into()),
        }
    }

    /// Tells the guide the sampled token. Whether a constraint allows nothing more.
    fn completes(&mut self, id: u32, guess: Guess) -> Result<bool, ConstraintFailure> {
        match &mut self.guide {
            // It went on with the right guess already.
            Some(_) if guess.token == Some(id) => Ok(guess.ends),
            Some(guide) => guide.take(guess.right, id),
            None => Ok(false),
        }
    }

    /// Reports the end of prefill before the first token.
    fn tell_read(&self) {
        if !self.generates() {
            self.send(Event::Read { cached: self.found });
        }
    }

    pub(super) fn fail(&mut self, failure: StepFailure) -> Progress {
        self.send(Event::Failed(failure));
        Progress::Ended
    }

    /// Releases its pages, and the slot of its state.
    pub(super) fn close(self, cache: &mut KvCache) {
        cache.close(self.table);
    }

    fn generated(&self) -> usize {
        self.known() - self.prompt
    }

    fn finish(&mut self, reason: FinishReason) -> Progress {
        self.send(Event::Finished { reason, generated: self.generated() });
        Progress::Ended
    }

    fn send(&self, event: Event) {
        // The channel has room for the whole answer, so this fails only if the caller is gone, which `abandoned`
        // detects.
        let _ = self.submitted.events.try_send(event);
    }
}

/// Whether a constraint allows nothing after that many tokens of the draft.
fn ends(next: &Result<Vec<Next>, ConstraintFailure>, right: usize) -> bool {
    next.as_ref().is_ok_and(|next| next.get(right) == Some(&Next::End))
}

impl Submitted {
    /// Whether the caller left, the deadline passed, or the place was given to another tenant; the last two are
    /// reported.
    pub(super) fn abandoned(&self, now: Instant) -> bool {
        if self.events.is_closed() {
            return true;
        }
        let failure = if self.seat.0.is_withdrawn() {
            StepFailure::Displaced
        } else if self.job.deadline.is_some_and(|deadline| deadline <= now) {
            StepFailure::Deadline
        } else {
            return false;
        };
        let _ = self.events.try_send(Event::Failed(failure));
        true
    }
}

impl Sequence {
    /// See [`Submitted::abandoned`].
    pub(super) fn abandoned(&self, now: Instant) -> bool {
        self.submitted.abandoned(now)
    }
}

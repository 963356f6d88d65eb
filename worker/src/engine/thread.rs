//! The loop.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, TryRecvError},
    },
    time::Instant,
};

use super::{
    Gauges, StepFailure, Submitted,
    sequence::{Progress, Sequence},
};
use crate::runtime::{CHUNK_MAX, DecodeRow, DecoderSession};

/// Prompt tokens a step while others decode: what they wait between two of their tokens.
const CHUNK_BESIDE_DECODING: usize = 128;

pub(super) struct EngineThread {
    session: DecoderSession,
    jobs: Receiver<Submitted>,
    gauges: Arc<Gauges>,
    waiting: VecDeque<Submitted>,
    /// In cache slots 0, 1, 2, …, without gaps.
    decoding: Vec<Sequence>,
    /// In the slot after those.
    prefilling: Option<Sequence>,
    rows: Vec<DecodeRow>,
}

impl EngineThread {
    pub(super) fn new(session: DecoderSession, jobs: Receiver<Submitted>, gauges: Arc<Gauges>) -> Self {
        Self {
            session,
            jobs,
            gauges,
            waiting: VecDeque::new(),
            decoding: Vec::new(),
            prefilling: None,
            rows: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        while self.receive() {
            self.let_go();
            self.admit();
            self.prefill();
            self.decode();
            self.report();
        }
    }

    /// Takes new jobs, waiting for one when there is nothing else to do. `false`: no more will come, all are done.
    fn receive(&mut self) -> bool {
        let idle = self.waiting.is_empty() && self.decoding.is_empty() && self.prefilling.is_none();
        if idle {
            match self.jobs.recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) => return false,
            }
        }
        loop {
            match self.jobs.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Frees the places of callers that left.
    fn let_go(&mut self) {
        let now = Instant::now();
        self.waiting.retain(|job| !job.abandoned(now));
        if self.prefilling.as_ref().is_some_and(|sequence| sequence.abandoned(now)) {
            self.prefilling = None;
        }
        for slot in (0..self.decoding.len()).rev() {
            if self.decoding[slot].abandoned(now) {
                self.remove(slot);
            }
        }
    }

    fn admit(&mut self) {
        if self.prefilling.is_none() && self.decoding.len() < self.session.sequences_max() {
            self.prefilling = self.waiting.pop_front().map(Sequence::new);
        }
    }

    /// Processes the next chunk of the prompt that is being read; with its last chunk comes the first token.
    fn prefill(&mut self) {
        let Some(mut sequence) = self.prefilling.take() else { return };
        let slot = self.decoding.len();
        let chunk_max = if slot == 0 { CHUNK_MAX } else { CHUNK_BESIDE_DECODING };
        let left = sequence.prompt_left();
        let chunk = &left[..left.len().min(chunk_max)];
        let (taken, last) = (chunk.len(), chunk.len() == left.len());
        let result = self.session.prefill(slot, sequence.past, chunk, sequence.adapter());
        let progress = match result {
            Err(error) => sequence.fail(StepFailure::Session(error.to_string())),
            Ok(_) if !last => {
                sequence.past += taken;
                self.prefilling = Some(sequence);
                self.gauges.prompt_tokens_processed.fetch_add(taken as u64, Relaxed);
                return;
            }
            Ok(logits) => {
                sequence.past += taken;
                self.gauges.prompt_tokens_processed.fetch_add(taken as u64, Relaxed);
                self.gauges.tokens_generated.fetch_add(1, Relaxed);
                sequence.advance(logits)
            }
        };
        if progress == Progress::Goes {
            self.decoding.push(sequence);
        }
    }

    /// One token for every running sequence.
    fn decode(&mut self) {
        if self.decoding.is_empty() {
            return;
        }
        self.rows.clear();
        self.rows.extend(self.decoding.iter().map(Sequence::row));
        let vocab = self.session.vocab_size();
        let mut ended = Vec::new();
        match self.session.decode(&self.rows) {
            Ok(logits) => {
                for (slot, (sequence, logits)) in self.decoding.iter_mut().zip(logits.chunks_exact(vocab)).enumerate() {
                    sequence.past += 1;
                    if sequence.advance(logits) == Progress::Ended {
                        ended.push(slot);
                    }
                }
                self.gauges.tokens_generated.fetch_add(self.rows.len() as u64, Relaxed);
                self.gauges.steps.fetch_add(1, Relaxed);
            }
            Err(error) => {
                let failure = StepFailure::Session(error.to_string());
                tracing::error!(%error, rows = self.rows.len(), "step failed");
                for (slot, sequence) in self.decoding.iter_mut().enumerate() {
                    sequence.fail(failure.clone());
                    ended.push(slot);
                }
            }
        }
        for slot in ended.into_iter().rev() {
            self.remove(slot);
        }
    }

    /// Takes a sequence out and closes the gap with the last one.
    fn remove(&mut self, slot: usize) {
        let last = self.decoding.len() - 1;
        self.decoding.swap_remove(slot);
        if let Some(moved) = self.decoding.get(slot) {
            self.session.move_slot(last, slot, moved.past);
        }
        if let Some(prefilling) = &self.prefilling {
            self.session.move_slot(last + 1, last, prefilling.past);
        }
    }

    fn report(&self) {
        let sequences = || self.decoding.iter().chain(&self.prefilling);
        let queued = self.waiting.iter().map(|job| job.job.prompt.len()).sum::<usize>()
            + self.prefilling.as_ref().map_or(0, |sequence| sequence.prompt_left().len());
        self.gauges.running.store(sequences().count(), Relaxed);
        self.gauges.waiting.store(self.waiting.len(), Relaxed);
        self.gauges.prompt_tokens_queued.store(queued, Relaxed);
        self.gauges.cache_tokens.store(sequences().map(|sequence| sequence.past).sum(), Relaxed);
    }
}

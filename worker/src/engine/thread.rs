//! The loop of the engine thread.

use std::{
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, TryRecvError},
    },
    time::Instant,
};

use super::{
    EngineConfig, Gauges, StepFailure, Submitted,
    ahead::{Look, LookAhead},
    cache::{KvCache, OutOfPages},
    draft::{self, Cost},
    queue::Queue,
    schedule::{self, Demand, Pace},
    sequence::{Progress, Rows, Sequence},
    states::States,
};
use crate::runtime::{Backend, Chunk, Geometry};

pub(super) struct EngineThread {
    backend: Box<dyn Backend>,
    ahead: LookAhead,
    geometry: Geometry,
    jobs: Receiver<Submitted>,
    gauges: Arc<Gauges>,
    sequences_max: usize,
    queue: Queue,
    /// Running sequences in the order of admission.
    running: Vec<Sequence>,
    cache: KvCache,
    states: States,
    pace: Pace,
    cost: Cost,
    prompt_lookup: bool,
    /// Tokens of each running sequence in the current step.
    scheduled_tokens: Vec<usize>,
}

impl EngineThread {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        ahead: LookAhead,
        config: EngineConfig,
        jobs: Receiver<Submitted>,
        gauges: Arc<Gauges>,
    ) -> Self {
        let geometry = backend.geometry();
        let prefix_pages = if geometry.shares_pages { config.prefix_pages } else { 0 };
        Self {
            jobs,
            gauges,
            sequences_max: config.sequences_max,
            queue: Queue::default(),
            running: Vec::new(),
            cache: KvCache::new(geometry.page, geometry.pages, prefix_pages),
            states: States::new(geometry.states),
            pace: Pace::new(config.step_max),
            cost: Cost::default(),
            prompt_lookup: config.prompt_lookup && geometry.drafts,
            scheduled_tokens: Vec::new(),
            backend,
            ahead,
            geometry,
        }
    }

    pub(super) fn run(mut self) {
        while self.receive() {
            self.let_go();
            self.admit();
            self.step();
            self.report();
        }
    }

    /// Takes new jobs; waits for one if idle. False when the handle is dropped and all jobs are done.
    fn receive(&mut self) -> bool {
        if self.queue.is_empty() && self.running.is_empty() {
            match self.jobs.recv() {
                Ok(job) => self.queue.push(job),
                Err(_) => return false,
            }
        }
        loop {
            match self.jobs.try_recv() {
                Ok(job) => self.queue.push(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Drops cancelled requests.
    fn let_go(&mut self) {
        let now = Instant::now();
        self.queue.let_go(now);
        for sequence in self.running.extract_if(.., |sequence| sequence.abandoned(now)) {
            sequence.close(&mut self.cache);
        }
    }

    /// Admits the next requests while there are places and pages. No request overtakes one that waits for pages, or it
    /// could wait for ever.
    fn admit(&mut self) {
        while self.running.len() < self.sequences_max {
            let Some(index) = self.queue.next() else { return };
            let Some(state) = self.states.take() else { return };
            let Some(table) = self.queue.get(index).and_then(|waiting| Sequence::room(waiting, &mut self.cache)) else {
                return;
            };
            let Some(waiting) = self.queue.take(index) else { return };
            let runs = waiting.submitted.seat.0.run();
            let sequence = Sequence::new(waiting, (table, state), &self.cache, self.sequences_max);
            if runs {
                self.running.push(sequence);
            } else {
                // Cancelled just now.
                sequence.abandoned(Instant::now());
                sequence.close(&mut self.cache);
            }
        }
    }

    /// Runs one forward pass over all sequences and samples their tokens.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let begun = Instant::now();
        let generating = self.schedule();
        if self.running.is_empty() {
            return;
        }
        let Self { backend, ahead, running, scheduled_tokens, cache, pace, cost, gauges, .. } = self;
        let looks = running.iter_mut().zip(scheduled_tokens.iter()).enumerate();
        let looks = looks.filter_map(|(place, (sequence, &scheduled))| sequence.look(place, scheduled));
        let looking = ahead.begin(looks.collect::<Vec<Look>>());
        let taking = || running.iter().zip(scheduled_tokens.iter()).filter(|(_, scheduled)| **scheduled > 0);
        let chunks: Vec<Chunk<'_>> = taking().map(|(sequence, &scheduled)| sequence.chunk(scheduled)).collect();
        let prompt_tokens: usize =
            taking().filter(|(sequence, _)| !sequence.generates()).map(|(_, &scheduled)| scheduled).sum();
        let drafted: usize = running.iter().map(Sequence::drafted).sum();
        let result = backend.step(&chunks);
        drop(chunks);
        let took = begun.elapsed();
        if looking {
            ahead.finish().into_iter().for_each(|seen| running[seen.place].saw(seen));
        }
        match result {
            Ok(sampled) => {
                pace.observe(prompt_tokens, generating, took);
                if prompt_tokens == 0 {
                    cost.observe(sampled, took.as_secs_f64());
                }
                let mut scheduled_tokens = scheduled_tokens.iter();
                let mut rows = Rows::new(&mut **backend);
                let (mut chosen, mut first) = (0, 0);
                keep(running, cache, |sequence, cache| {
                    let scheduled = scheduled_tokens.next().copied().unwrap_or(0);
                    if scheduled == 0 {
                        return Progress::Goes;
                    }
                    let (progress, tokens) = sequence.took(scheduled, &mut rows, cache);
                    chosen += tokens;
                    first += tokens.min(1);
                    progress
                });
                gauges.prompt_tokens_processed.fetch_add(prompt_tokens as u64, Relaxed);
                gauges.tokens_generated.fetch_add(chosen as u64, Relaxed);
                gauges.drafted.fetch_add(drafted as u64, Relaxed);
                gauges.drafted_right.fetch_add((chosen - first) as u64, Relaxed);
                gauges.steps.fetch_add(1, Relaxed);
            }
            Err(error) => {
                tracing::error!(%error, sequences = running.len(), "step failed");
                let failure = StepFailure::Session(error.to_string());
                keep(running, cache, |sequence, _| sequence.fail(failure.clone()));
            }
        }
    }

    /// Distributes the tokens of a step, drafts included, and allocates pages. True if a sequence decodes.
    fn schedule(&mut self) -> bool {
        let Self { geometry, running, scheduled_tokens, cache, pace, cost, prompt_lookup, .. } = self;
        running.iter_mut().for_each(|sequence| sequence.follow(cache));
        let demands: Vec<Demand> = running.iter().map(Sequence::demand).collect();
        let generating = running.iter().any(Sequence::generates);
        schedule::schedule(&demands, pace.prompt_tokens(generating), scheduled_tokens);
        // Steps with prefill have enough rows without drafts.
        if *prompt_lookup && demands.iter().all(|demand| demand.left == 1) {
            let drafts: Vec<_> = running.iter_mut().map(Sequence::draft).collect();
            let lengths = draft::lengths(&drafts, running.len()..geometry.logits, cost);
            running.iter_mut().zip(lengths).for_each(|(sequence, length)| sequence.cut_draft(length));
        }
        let mut sequences = running.iter_mut().zip(scheduled_tokens.iter());
        if let Some(index) = sequences.position(|(sequence, &scheduled)| sequence.grow(cache, scheduled).is_err()) {
            self.fail_from(index);
        }
        generating
    }

    /// Fails the sequences from `index` on, which cannot get their reserved pages.
    fn fail_from(&mut self, index: usize) {
        tracing::error!("{OutOfPages}");
        self.scheduled_tokens.truncate(index);
        for mut sequence in self.running.drain(index..) {
            sequence.fail(StepFailure::Session(OutOfPages.to_string()));
            sequence.close(&mut self.cache);
        }
    }

    fn report(&self) {
        let unread: usize = self.running.iter().map(Sequence::prompt_left).sum();
        self.gauges.running.store(self.running.len(), Relaxed);
        self.gauges.waiting.store(self.queue.len(), Relaxed);
        self.gauges.prompt_tokens_queued.store(self.queue.prompt_tokens() + unread, Relaxed);
        self.gauges.cache_tokens.store(self.running.iter().map(Sequence::past).sum(), Relaxed);
    }
}

/// Keeps the sequences that continue, in order.
fn keep(
    running: &mut Vec<Sequence>,
    cache: &mut KvCache,
    mut progress: impl FnMut(&mut Sequence, &mut KvCache) -> Progress,
) {
    let ended: Vec<_> = running.extract_if(.., |sequence| progress(sequence, cache) == Progress::Ended).collect();
    ended.into_iter().for_each(|sequence| sequence.close(cache));
}

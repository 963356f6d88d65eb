//! The loop of the embedder's thread.

use std::{
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, TryRecvError},
    },
    time::Instant,
};

use slm_kernels::Level;

use super::{
    BATCH_TOKENS, Gauges, Readout, Submitted, Tokens,
    queue::{BatchMax, Place, Queue},
};
use crate::{
    engine::StepFailure,
    runtime::{EncoderSession, Text},
};

pub(super) struct EmbedderThread {
    session: EncoderSession,
    readout: Readout,
    level: Level,
    jobs: Receiver<Submitted>,
    gauges: Arc<Gauges>,
    queue: Queue<Request>,
}

/// A request with the results that it has so far.
struct Request {
    submitted: Submitted,
    vectors: Vec<Vec<f32>>,
    begun: bool,
    failure: Option<StepFailure>,
}

impl EmbedderThread {
    pub(super) fn new(
        session: EncoderSession,
        readout: Readout,
        jobs: Receiver<Submitted>,
        gauges: Arc<Gauges>,
    ) -> Self {
        Self { session, readout, level: Level::best(), jobs, gauges, queue: Queue::new() }
    }

    pub(super) fn run(mut self) {
        while self.receive() {
            self.drop_abandoned();
            self.embed();
            self.answer();
        }
    }

    /// Takes new jobs; waits for one if idle. False when the handle is dropped and all jobs are done.
    fn receive(&mut self) -> bool {
        if self.queue.is_empty() {
            match self.jobs.recv() {
                Ok(job) => self.push(job),
                Err(_) => return false,
            }
        }
        loop {
            match self.jobs.try_recv() {
                Ok(job) => self.push(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn push(&mut self, submitted: Submitted) {
        let lengths = submitted.job.texts.iter().map(Tokens::len).collect();
        let (tenant, priority) = (submitted.permit.tenant().clone(), submitted.job.priority);
        let vectors = Vec::with_capacity(submitted.job.texts.len());
        self.queue.push(tenant, priority, lengths, Request { submitted, vectors, begun: false, failure: None });
    }

    /// Marks requests that nobody waits for, whose deadline passed, or whose permit was taken away.
    fn drop_abandoned(&mut self) {
        let now = Instant::now();
        let ended = self.queue.remove(|request| {
            let Submitted { job, permit, reply } = &request.submitted;
            if job.deadline.is_some_and(|deadline| deadline <= now) {
                request.failure = Some(StepFailure::Deadline);
            } else if !request.begun && permit.is_withdrawn() {
                request.failure = Some(StepFailure::Displaced);
            }
            request.failure.is_some() || reply.is_closed()
        });
        ended.into_iter().for_each(|request| self.reply(request));
    }

    /// Runs a batch.
    fn embed(&mut self) {
        let config = self.session.config();
        let places = self.queue.batch(BatchMax { tokens: BATCH_TOKENS.min(config.tokens), texts: config.texts });
        for (index, _) in &places {
            if let Some(request) = self.queue.get_mut(*index).filter(|request| !request.begun) {
                request.begun = true;
                // Its place in the queue is not asked for from here on.
                request.submitted.permit.run();
            }
        }
        self.report(&places);
        let failure = match self.batch(&places) {
            Ok(vectors) => {
                for ((index, _), vector) in places.iter().zip(vectors) {
                    let Some(request) = self.queue.get_mut(*index) else { continue };
                    if vector.iter().any(|x| !x.is_finite()) {
                        request.failure =
                            Some(StepFailure::Session("the model made a result that is not finite".into()));
                    }
                    request.vectors.push(vector);
                }
                return;
            }
            Err(failure) => failure,
        };
        tracing::error!(%failure, "a batch of texts failed");
        for (index, _) in &places {
            if let Some(request) = self.queue.get_mut(*index) {
                request.failure = Some(failure.clone());
            }
        }
    }

    /// The results of the texts at `places`.
    fn batch(&mut self, places: &[Place]) -> Result<Vec<Vec<f32>>, StepFailure> {
        let text = |(index, text): &Place| {
            let job = &self.queue.get(*index)?.submitted.job;
            let adapter = job.adapter.as_ref().map(|lease| lease.slot());
            let Tokens { ids, types } = job.texts.get(*text)?;
            Some((Text { tokens: ids, types, adapter }, job))
        };
        let (texts, jobs): (Vec<_>, Vec<_>) = places.iter().filter_map(text).unzip();
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let width = self.session.width();
        let mut states = self.session.states(&texts).map_err(|error| StepFailure::Session(error.to_string()))?;
        let mut vectors = Vec::with_capacity(texts.len());
        for (text, job) in texts.iter().zip(jobs) {
            let (own, rest) = states.split_at(text.tokens.len() * width);
            let readout = job.adapter.as_ref().and_then(|lease| lease.info.readout.as_deref());
            vectors.push(readout.unwrap_or(&self.readout).read(self.level, own, width, job.dimensions));
            states = rest;
        }
        self.gauges.processed.fetch_add(texts.iter().map(|text| text.tokens.len() as u64).sum(), Relaxed);
        self.gauges.batches.fetch_add(1, Relaxed);
        Ok(vectors)
    }

    /// Replies to requests that are complete or have failed.
    fn answer(&mut self) {
        let complete = |request: &mut Request| {
            request.failure.is_some() || request.vectors.len() == request.submitted.job.texts.len()
        };
        let ended = self.queue.remove(complete);
        ended.into_iter().for_each(|request| self.reply(request));
        if self.queue.is_empty() {
            self.report(&[]);
        }
    }

    fn reply(&self, request: Request) {
        let Request { submitted: Submitted { job, permit, reply }, vectors, failure, .. } = request;
        self.gauges.queued.fetch_sub(job.texts.iter().map(Tokens::len).sum(), Relaxed);
        permit.complete();
        // A caller that is gone needs no answer.
        let _ = reply.send(failure.map_or(Ok(vectors), Err));
    }

    fn report(&self, places: &[Place]) {
        self.gauges.running.store(places.len(), Relaxed);
        self.gauges.waiting.store(self.queue.len(), Relaxed);
    }
}

//! The engine: a thread that owns the session and runs continuous batching.
//!
//! Each turn of its loop takes new jobs, drops cancelled ones, admits waiting requests (`queue`) for which there are
//! pages (`cache`), and runs one forward pass over all sequences with chunked prefill (`schedule`), whatever their
//! adapters. Everything else (templates, text, stop strings, network) happens elsewhere, behind the two channels of a
//! [`Job`].

mod ahead;
mod cache;
mod draft;
mod queue;
mod schedule;
mod sequence;
mod states;
mod thread;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use slm_pool::Priority;
use tokio::sync::mpsc as events;

use crate::{
    adapters::AdapterLease,
    constrain::{ConstraintFailure, Guide},
    permits::{Permit, PermitError, PermitLimits, Permits},
    runtime::Backend,
    sample::{Logprobs, NotFinite, SamplingParams},
};

/// A generation job.
#[derive(Debug)]
pub struct Job {
    /// Tokens of the prompt: at least one, fewer than the context.
    pub prompt: Vec<u32>,
    /// Adapter version to use; leased until the end.
    pub adapter: Option<Arc<AdapterLease>>,
    /// Sampling parameters.
    pub sampling: SamplingParams,
    /// What the answer has to be.
    pub guide: Option<Guide>,
    /// Bound on generated tokens; at least one, and within the context together with the prompt.
    pub tokens_max: usize,
    /// Token ids that end the answer.
    pub stop_ids: Vec<u32>,
    /// Priority among waiting requests; lower goes first.
    pub priority: i32,
    /// Its tenant's share of a busy worker; at least 1.
    pub weight: u32,
    /// Time after which the job is abandoned.
    pub deadline: Option<Instant>,
}

/// Events of a job, in this order: `Read`, `Token`s, one of the others, then the channel closes. A channel that closes
/// without one of those means that the engine is gone.
#[derive(Debug)]
pub enum Event {
    /// Prefill is complete.
    Read {
        /// Prompt tokens found in the prefix cache.
        cached: usize,
    },
    /// A generated token.
    Token {
        /// Token id.
        id: u32,
        /// Log-probabilities, if requested.
        logprobs: Option<Logprobs>,
    },
    /// The token that ends the answer; `Finished` follows.
    End {
        /// Token id.
        id: u32,
        /// Log-probabilities, if requested.
        logprobs: Option<Logprobs>,
    },
    /// The answer is complete.
    Finished {
        /// Reason of the end.
        reason: FinishReason,
        /// Number of generated tokens, including a stop token.
        generated: usize,
    },
    /// The answer failed.
    Failed(StepFailure),
}

/// Reason why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token or end-of-sequence token, or the end of all that a constraint allows.
    Stop,
    /// The bound on generated tokens.
    Length,
}

/// Reason why an answer failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StepFailure {
    /// The deadline passed.
    #[error("the deadline passed before the answer was complete")]
    Deadline,
    /// Its place in the queue was given to a tenant with fewer requests.
    #[error("requests of other tenants took its place in the queue; retry later")]
    Displaced,
    /// The model's logits are unusable.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// The constraint cannot be kept any longer.
    #[error(transparent)]
    Constraint(#[from] ConstraintFailure),
    /// ONNX Runtime failed.
    #[error("a step failed: {0}")]
    Session(String),
}

/// A job could not be submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The engine thread is gone.
    #[error("the worker is stopping")]
    Stopped,
}

/// Load gauges of the engine, updated on every turn of its loop.
#[derive(Debug, Default)]
pub struct Gauges {
    running: AtomicUsize,
    waiting: AtomicUsize,
    prompt_tokens_queued: AtomicUsize,
    cache_tokens: AtomicUsize,
    tokens_generated: AtomicU64,
    prompt_tokens_processed: AtomicU64,
    steps: AtomicU64,
    drafted: AtomicU64,
    drafted_right: AtomicU64,
}

/// Snapshot of [`Gauges`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Running sequences.
    pub running: usize,
    /// Waiting requests.
    pub waiting: usize,
    /// Prompt tokens not yet processed.
    pub prompt_tokens_queued: usize,
    /// Cache positions in use.
    pub cache_tokens: usize,
    /// Tokens generated since the start.
    pub tokens_generated: u64,
    /// Prompt tokens processed since the start.
    pub prompt_tokens_processed: u64,
    /// Steps since the start.
    pub steps: u64,
    /// Drafted tokens verified since the start.
    pub drafted: u64,
    /// Drafted tokens accepted since the start.
    pub drafted_right: u64,
}

impl Gauges {
    /// The current values.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            running: self.running.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            prompt_tokens_queued: self.prompt_tokens_queued.load(Ordering::Relaxed),
            cache_tokens: self.cache_tokens.load(Ordering::Relaxed),
            tokens_generated: self.tokens_generated.load(Ordering::Relaxed),
            prompt_tokens_processed: self.prompt_tokens_processed.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            drafted: self.drafted.load(Ordering::Relaxed),
            drafted_right: self.drafted_right.load(Ordering::Relaxed),
        }
    }
}

/// Configuration of the engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Bound on running sequences.
    pub sequences_max: usize,
    /// Bound on waiting requests.
    pub queue_max: usize,
    /// Bound on complete answers that were not read.
    pub unread_max: usize,
    /// Bound on pages with prefixes that no sequence uses; zero disables prefix caching, as does a backend that cannot share pages.
    pub prefix_pages: usize,
    /// Whether to draft by prompt lookup, if that pays on the backend.
    pub prompt_lookup: bool,
    /// Bound on the duration of a step while a sequence decodes; prefill is chunked accordingly.
    pub step_max: Duration,
}

struct Submitted {
    job: Job,
    events: events::Sender<Event>,
    seat: Seat,
}

/// The engine's share of a permit: when dropped, nothing more is generated for the request.
struct Seat(Arc<Permit>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.complete();
    }
}

/// Handle of the engine. The thread ends when all clones are dropped and its jobs are done.
#[derive(Clone)]
pub struct Engine {
    jobs: mpsc::Sender<Submitted>,
    permits: Permits,
    gauges: Arc<Gauges>,
    sequences_max: usize,
    context_length: usize,
    cache_tokens_max: usize,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("stats", &self.gauges.stats()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the thread.
    pub fn start(backend: Box<dyn Backend>, config: EngineConfig) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, receiver) = mpsc::channel();
        let gauges = Arc::new(Gauges::default());
        let active_max = config.sequences_max + config.queue_max;
        let limits = PermitLimits { active_max, open_max: active_max + config.unread_max };
        let geometry = backend.geometry();
        let ahead = ahead::LookAhead::start()?;
        let engine = Self {
            jobs,
            permits: Permits::new(limits),
            gauges: gauges.clone(),
            sequences_max: config.sequences_max,
            context_length: geometry.context_length,
            cache_tokens_max: geometry.pages * geometry.page,
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            Priority::Compute.enter();
            thread::EngineThread::new(backend, ahead, config, receiver, gauges).run();
        })?;
        Ok((engine, thread))
    }

    /// A permit for a request of `tenant`, to be taken before any work for it.
    pub fn enter(&self, tenant: &Arc<str>, priority: i32) -> Result<Arc<Permit>, PermitError> {
        self.permits.enter(tenant, priority)
    }

    /// Submits `job`. Dropping the receiver cancels it: its place and pages are free after the current step.
    pub fn submit(&self, permit: Arc<Permit>, job: Job) -> Result<events::Receiver<Event>, SubmitError> {
        // The channel has room for the whole answer, so the engine never waits for a slow reader.
        let (events, receiver) = events::channel(job.tokens_max + 2);
        self.jobs.send(Submitted { job, events, seat: Seat(permit) }).map_err(|_| SubmitError::Stopped)?;
        Ok(receiver)
    }

    /// Permits of its requests.
    pub fn permits(&self) -> &Permits {
        &self.permits
    }

    /// Current load.
    pub fn stats(&self) -> EngineStats {
        self.gauges.stats()
    }

    /// Bound on running sequences.
    pub fn sequences_max(&self) -> usize {
        self.sequences_max
    }

    /// Positions in the cache.
    pub fn cache_tokens_max(&self) -> usize {
        self.cache_tokens_max
    }

    /// Bound on prompt and answer together, in tokens.
    pub fn context_length(&self) -> usize {
        self.context_length
    }
}

#[cfg(test)]
mod tests;

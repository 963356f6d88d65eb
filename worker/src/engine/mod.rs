//! The thread that owns the session, and what others may ask of it.
//!
//! One loop: take new jobs, let go of those whose caller left, let in who is next (`queue`) and for whom there are
//! pages (`cache`), and run the next tokens (`schedule`) of all sequences together, prompts and answers, whatever adapter
//! each has. Everything a request needs besides those steps (templates, text, stop strings, the network) happens
//! elsewhere, on the other side of the two channels of a [`Job`].

mod cache;
mod draft;
mod queue;
mod schedule;
mod sequence;
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

use slm_kernels::attention::PAGE;
use tokio::sync::mpsc as events;

use crate::{
    adapters::AdapterLease,
    permits::{Permit, PermitError, PermitLimits, Permits},
    runtime::DecoderSession,
    sample::{Logprobs, NotFinite, SamplingParams},
    thread_priority::lower,
};

/// What to generate.
#[derive(Debug)]
pub struct Job {
    /// The prompt: at least one token, fewer than the context.
    pub prompt: Vec<u32>,
    /// The adapter version to answer with; held to the end.
    pub adapter: Option<Arc<AdapterLease>>,
    /// How to choose tokens.
    pub sampling: SamplingParams,
    /// Tokens to generate at most; at least one, and within the context together with the prompt.
    pub tokens_max: usize,
    /// Generation ends at these.
    pub stop_ids: Vec<u32>,
    /// Of those that wait, the lowest goes first.
    pub priority: i32,
    /// Give up at this time.
    pub deadline: Option<Instant>,
}

/// What comes back, in this order: `Read`, `Token`s, then one of the others, then the channel closes. A channel that closes
/// without one of those means that the engine is gone.
#[derive(Debug)]
pub enum Event {
    /// The prompt was read.
    Read {
        /// Tokens of it that were in the cache already.
        cached: usize,
    },
    /// A generated token.
    Token {
        /// Its id.
        id: u32,
        /// When the job asked for them.
        logprobs: Option<Logprobs>,
    },
    /// The token that ends the answer; Finished follows.
    End {
        /// Its id.
        id: u32,
        /// When the job asked for them.
        logprobs: Option<Logprobs>,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens generated, a stop token included.
        generated: usize,
    },
    /// The answer cannot be completed.
    Failed(StepFailure),
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token or an end-of-sequence token.
    Stop,
    /// `tokens_max`.
    Length,
}

/// Why an answer failed while it ran.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StepFailure {
    /// The deadline passed.
    #[error("the deadline passed before the answer was complete")]
    Deadline,
    /// Its place in the queue was given to a tenant that had fewer.
    #[error("requests of other tenants took its place in the queue; retry later")]
    Displaced,
    /// The model's output is unusable.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// ONNX Runtime failed.
    #[error("a step failed: {0}")]
    Session(String),
}

/// A job could not be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The engine thread is gone.
    #[error("the worker is stopping")]
    Stopped,
}

/// How busy the engine is. Numbers are those of the last loop.
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

/// A copy of [`Gauges`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Sequences that have pages of the cache.
    pub running: usize,
    /// Requests that wait for a place.
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
    /// Tokens of drafts that steps checked since the start.
    pub drafted: u64,
    /// Of those, how many were right.
    pub drafted_right: u64,
}

impl Gauges {
    /// The numbers now.
    pub fn load(&self) -> Load {
        Load {
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

/// How the engine is laid out.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Sequences that run at once.
    pub sequences_max: usize,
    /// Requests that may wait besides.
    pub queue_max: usize,
    /// Answers that may be complete and unread besides.
    pub unread_max: usize,
    /// Pages that may keep prefixes for later requests; zero: none is kept or shared.
    pub prefix_pages: usize,
    /// Whether drafts are looked up in what a sequence has so far.
    pub prompt_lookup: bool,
    /// What a step may take while somebody generates: a prompt beside them is cut accordingly.
    pub step_max: Duration,
}

struct Submitted {
    job: Job,
    events: events::Sender<Event>,
    seat: Seat,
}

/// The engine's hold on a permit: when the engine lets go of a request, nothing more is generated for it.
struct Seat(Arc<Permit>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.complete();
    }
}

/// Hands jobs to the engine. The thread ends when all copies are gone and its work is done.
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
        f.debug_struct("Engine").field("load", &self.gauges.load()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the thread.
    pub fn start(session: DecoderSession, config: EngineConfig) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, receiver) = mpsc::channel();
        let gauges = Arc::new(Gauges::default());
        let active_max = config.sequences_max + config.queue_max;
        let limits = PermitLimits { active_max, open_max: active_max + config.unread_max };
        let engine = Self {
            jobs,
            permits: Permits::new(limits),
            gauges: gauges.clone(),
            sequences_max: config.sequences_max,
            context_length: session.config().context_length,
            cache_tokens_max: session.config().pages * PAGE,
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            lower();
            thread::EngineThread::new(session, config, receiver, gauges).run();
        })?;
        Ok((engine, thread))
    }

    /// A permit for a request of `tenant`: to be taken before anything is done for it.
    pub fn enter(&self, tenant: &Arc<str>, priority: i32) -> Result<Arc<Permit>, PermitError> {
        self.permits.enter(tenant, priority)
    }

    /// Queues `job`. Dropping the receiver cancels it: its place and pages are free after the step that runs.
    pub fn submit(&self, permit: Arc<Permit>, job: Job) -> Result<events::Receiver<Event>, SubmitError> {
        // Room for the whole answer: the engine never waits for a slow reader.
        let (events, receiver) = events::channel(job.tokens_max + 2);
        self.jobs.send(Submitted { job, events, seat: Seat(permit) }).map_err(|_| SubmitError::Stopped)?;
        Ok(receiver)
    }

    /// The permits of its requests.
    pub fn permits(&self) -> &Permits {
        &self.permits
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        self.gauges.load()
    }

    /// Sequences that run at once.
    pub fn sequences_max(&self) -> usize {
        self.sequences_max
    }

    /// Positions that the cache has room for.
    pub fn cache_tokens_max(&self) -> usize {
        self.cache_tokens_max
    }

    /// Prompt and answer together.
    pub fn context_length(&self) -> usize {
        self.context_length
    }
}

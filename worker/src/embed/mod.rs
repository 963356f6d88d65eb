//! The embedder: a thread that owns the session and turns texts into vectors, scores or labels, in batches of as many tokens as pay.
//!
//! As in the [engine](crate::engine), a request holds a permit, tenants take turns (`queue`), and a request that was cancelled or
//! whose deadline passed is dropped before the next batch. What states of tokens become is `readout`; tokenising
//! (`text`) and the network are elsewhere.

mod queue;
mod readout;
mod text;
mod thread;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Instant,
};

use slm_pool::Priority;
use tokio::sync::oneshot;

use crate::{
    adapters::AdapterLease,
    engine::{EngineStats, StepFailure, SubmitError},
    permits::{Permit, PermitError, PermitLimits, Permits},
    runtime::EncoderSession,
};

pub(crate) use readout::Readout;
pub(crate) use text::{TextError, TextReader, Tokens};

/// Texts of a batch.
pub(crate) const BATCH_TEXTS: usize = 256;
/// Tokens of a batch, unless one text has more: enough to keep the threads busy, few enough to stay in their caches.
pub(crate) const BATCH_TOKENS: usize = 512;
/// Bound on the tokens of waiting requests: 16 MiB.
const QUEUED_TOKENS_MAX: usize = 4 << 20;

/// Texts to read.
#[derive(Debug)]
pub(crate) struct Job {
    /// Tokens of each text, or pair: at least one, at most the context.
    pub(crate) texts: Vec<Tokens>,
    /// Adapter version to use; leased until the end.
    pub(crate) adapter: Option<Arc<AdapterLease>>,
    /// Numbers of a result, where a vector may be cut.
    pub(crate) dimensions: usize,
    /// Priority among waiting requests of the tenant; lower goes first.
    pub(crate) priority: i32,
    /// Time after which the job is abandoned.
    pub(crate) deadline: Option<Instant>,
}

/// A result for each text, or why there are none.
pub(crate) type Embedded = Result<Vec<Vec<f32>>, StepFailure>;

struct Submitted {
    job: Job,
    permit: Arc<Permit>,
    reply: oneshot::Sender<Embedded>,
}

/// There is no room for a request's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RoomError {
    /// The texts that wait are as many as the worker keeps.
    #[error("{0} tokens wait to be read, which is as much as this worker keeps; retry later, or send fewer at once")]
    Tokens(usize),
    /// The thread is gone.
    #[error(transparent)]
    Stopped(#[from] SubmitError),
}

/// Load, updated with every batch.
#[derive(Debug, Default)]
struct Gauges {
    running: AtomicUsize,
    waiting: AtomicUsize,
    /// Tokens of requests that have not ended.
    queued: AtomicUsize,
    processed: AtomicU64,
    batches: AtomicU64,
}

/// Handle of the thread, which ends when it is dropped and all jobs are done.
pub(crate) struct Embedder {
    jobs: mpsc::Sender<Submitted>,
    permits: Permits,
    gauges: Arc<Gauges>,
    context_length: usize,
    texts_max: usize,
    /// Numbers of a whole result.
    width: usize,
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedder").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Embedder {
    /// Starts the thread, for `requests_max` requests that run or wait.
    pub(crate) fn start(
        session: EncoderSession,
        readout: Readout,
        requests_max: usize,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, receiver) = mpsc::channel();
        let gauges = Arc::new(Gauges::default());
        let limits = PermitLimits { active_max: requests_max, open_max: 2 * requests_max };
        let embedder = Self {
            jobs,
            permits: Permits::new(limits),
            gauges: gauges.clone(),
            context_length: session.config().context_length,
            texts_max: session.config().texts,
            width: readout.width(session.width()),
        };
        let thread = std::thread::Builder::new().name("embedder".into()).spawn(move || {
            Priority::Compute.enter();
            thread::EmbedderThread::new(session, readout, receiver, gauges).run();
        })?;
        Ok((embedder, thread))
    }

    /// A permit for a request of `tenant`, to be taken before any work for it.
    pub(crate) fn enter(&self, tenant: &Arc<str>, priority: i32) -> Result<Arc<Permit>, PermitError> {
        self.permits.enter(tenant, priority)
    }

    /// Submits `job`. Dropping the receiver cancels it.
    pub(crate) fn submit(&self, permit: Arc<Permit>, job: Job) -> Result<oneshot::Receiver<Embedded>, RoomError> {
        let tokens: usize = job.texts.iter().map(Tokens::len).sum();
        let queued = self.gauges.queued.fetch_add(tokens, Ordering::Relaxed);
        // A request alone is bounded by its message.
        if queued > 0 && queued + tokens > QUEUED_TOKENS_MAX {
            self.gauges.queued.fetch_sub(tokens, Ordering::Relaxed);
            return Err(RoomError::Tokens(queued));
        }
        let (reply, receiver) = oneshot::channel();
        self.jobs.send(Submitted { job, permit, reply }).map_err(|_| SubmitError::Stopped)?;
        Ok(receiver)
    }

    /// Permits of its requests.
    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }

    /// Bound on the tokens of a text.
    pub(crate) fn context_length(&self) -> usize {
        self.context_length
    }

    /// Bound on the texts of a batch.
    pub(crate) fn texts_max(&self) -> usize {
        self.texts_max
    }

    /// Numbers of a whole result.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Current load, in the engine's terms: tokens that were read count as those of prompts.
    pub(crate) fn stats(&self) -> EngineStats {
        EngineStats {
            running: self.gauges.running.load(Ordering::Relaxed),
            waiting: self.gauges.waiting.load(Ordering::Relaxed),
            prompt_tokens_queued: self.gauges.queued.load(Ordering::Relaxed),
            prompt_tokens_processed: self.gauges.processed.load(Ordering::Relaxed),
            steps: self.gauges.batches.load(Ordering::Relaxed),
            ..EngineStats::default()
        }
    }
}

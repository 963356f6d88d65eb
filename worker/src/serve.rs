//! The worker process: open the model, serve, drain, end.

use std::{
    convert::Infallible, fmt::Display, net::SocketAddr, panic::AssertUnwindSafe, path::PathBuf, sync::Arc,
    thread::JoinHandle, time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, pending},
};
use slm_artifacts::{FetchError, Source, Store, StoreConfig};
use slm_listen::deadline::DeadlineLayer;
use slm_pool::{FairPool, Priority};
use slm_probes::faults::panics_when_asked;
use slm_proto::v1::{
    embeddings_server::EmbeddingsServer, generation_server::GenerationServer, tokens_server::TokensServer,
    worker_control_server::WorkerControlServer,
};
use slm_tls::{FolderError, Identity};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Server,
    server::{Router, TcpIncoming},
};
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity as NoLayer, Stack};

use crate::{
    engine::EngineStats,
    fetch::{self, Fetched},
    model::{Model, ModelError, ModelOptions, Opening, Task, available_threads},
    probe::WorkerProbe,
    service::{Access, Control, Encode, Generate, OpenAnswers, Shared, Tokenize},
    serving_metrics::ServingMetrics,
    state,
};

/// Bound on a request message: a prompt of a million tokens would not fit any context.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Idle time before a keepalive ping, and time for its answer.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow-control window: bytes that a caller may send ahead, for a request and for a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Streams of a connection besides requests with a permit and as many to be refused: state, health, loads.
const STREAMS_BESIDES: usize = 256;
/// Bound on threads for long prompts: they have half of the cores at most.
const TEXT_THREADS_MAX: usize = 2;
/// Time for the last frames of ended answers, even after the drain timeout.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// Configuration of a worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The model, without its source.
    pub model: ModelOptions,
    /// Source of the model.
    pub source: Source,
    /// Artifact store for the model and adapters.
    pub artifacts: StoreConfig,
    /// Listen address of the gRPC endpoint; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Folder with certificates of the swarm: only its operator and routers may connect. Unset: plain text, open to
    /// all.
    pub tls: Option<PathBuf>,
    /// Listen address of probes and metrics, if any.
    pub probes: Option<SocketAddr>,
    /// Bound on the duration of a drain, including the reading of answers.
    pub drain_timeout: Duration,
    /// Time without reading after which an answer is ended.
    pub read_timeout: Duration,
    /// Bound on the duration of an adapter's load, including its fetch.
    pub load_timeout: Duration,
}

/// Milestones of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEvent {
    /// The model is being opened.
    Opening(Opening),
    /// Requests are served.
    Ready {
        /// Address of the gRPC endpoint.
        address: SocketAddr,
    },
}

/// The worker could not start, or could not continue.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The model's files are not available.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The model cannot be served.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The listen address is not available.
    #[error("{address}: {source}; choose another address or stop what uses it")]
    Listen {
        /// Listen address.
        address: SocketAddr,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] FolderError),
    /// The reflection service refused the descriptors.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A necessary task ended.
    #[error("{task}: {why}; the worker cannot go on without it")]
    Task {
        /// Name of the task.
        task: &'static str,
        /// Reason of the end.
        why: String,
    },
    /// The engine thread ended.
    #[error("the engine stopped; its last log lines say why")]
    EngineStopped,
}

/// Compute threads for each adapter that may be packed concurrently, because packing takes a core from decoding.
const THREADS_PER_PACKING: usize = 4;

/// Serves until `shutdown`, then drains.
///
/// Boxed, so that it is compiled once, in this crate.
pub fn run(
    config: WorkerConfig,
    shutdown: CancellationToken,
    events: impl Fn(WorkerEvent) + Send + Sync + 'static,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    serve(config, shutdown, Arc::new(events))
}

/// Not generic, so that it is compiled in this crate.
fn serve(
    config: WorkerConfig,
    shutdown: CancellationToken,
    events: Arc<Events>,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    Box::pin(live(config, shutdown, events))
}

async fn live(config: WorkerConfig, shutdown: CancellationToken, events: Arc<Events>) -> Result<(), WorkerError> {
    // Before the model is opened, so that a port in use fails at once.
    let (listener, address) = listen(config.listen).await?;
    let tls = config.tls.as_deref().map(|folder| slm_tls::follow(folder, Identity::Worker)).transpose()?;
    let ended = CancellationToken::new();
    let _ended = ended.clone().drop_guard();
    let probe = WorkerProbe::new();
    let mut tasks = Tasks::default();
    if let Some(probes) = config.probes {
        let (listener, _) = listen(probes).await?;
        tasks.spawn("probes", slm_probes::serve(listener, probe.clone(), ended.clone()));
    }
    let store = Store::open(config.artifacts.clone())?;
    let (model, engine_thread) = tokio::select! {
        opened = open(&config, &store, events.clone()) => opened?,
        died = tasks.died() => return Err(died),
        // No requests yet, so nothing to drain.
        () = shutdown.cancelled() => return Ok(()),
    };
    let engine_ended = tokio::task::spawn_blocking(move || engine_thread.join());
    tokio::pin!(engine_ended);

    let (draining, draining_seen) = watch::channel(false);
    let first = state::describe(&model, EngineStats::default(), 0.0, false);
    let (state, state_seen) = watch::channel(first);
    let metrics = ServingMetrics::new();
    probe.open(state_seen.clone(), model.adapters.metrics().clone(), metrics.clone());
    let publishing = state::publish(model.clone(), draining_seen.clone(), state, ended.clone());
    tasks.spawn("state", panics_when_asked("worker-state", publishing).map(Ok::<_, Infallible>));
    let answers = OpenAnswers::new(config.read_timeout);
    let ending = answers.clone().end_unread(model.permits().clone(), ended.clone());
    tasks.spawn("unread answers", ending.map(Ok::<_, Infallible>));

    let shared = Shared {
        model: model.clone(),
        store,
        text: FairPool::new("text", Priority::Compute, (available_threads() / 2).min(TEXT_THREADS_MAX)),
        answers,
        load_timeout: config.load_timeout,
        tokenizing: Arc::new(Semaphore::new(available_threads())),
        packing: Arc::new(Semaphore::new(available_threads().div_ceil(THREADS_PER_PACKING))),
        draining: draining_seen,
        state: state_seen,
        metrics,
    };
    let task = model.task();
    let (health, router) = router(shared, tls.is_some()).await?;
    events(WorkerEvent::Ready { address });
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let finish = CancellationToken::new();
    let finished = finish.clone().cancelled_owned();
    match tls {
        None => tasks.spawn("gRPC", router.serve_with_incoming_shutdown(incoming, finished)),
        Some(tls) => tasks.spawn("gRPC", async move {
            // The certificates are watched for as long as `tls` lives.
            router.serve_with_incoming_shutdown(tls.incoming(incoming), finished).await
        }),
    }

    let serving = async {
        shutdown.cancelled().await;
        // Routers see it in the state stream and send no more requests; running ones complete.
        draining.send_replace(true);
        match task {
            Task::Generate => health.set_not_serving::<GenerationServer<Generate>>().await,
            Task::Embed | Task::Rerank | Task::Classify => {
                health.set_not_serving::<EmbeddingsServer<Encode>>().await;
            }
        }
        let until = Instant::now() + config.drain_timeout;
        drain(&model, config.drain_timeout).await;
        until
    };
    let until = tokio::select! {
        until = serving => until,
        died = tasks.died() => return Err(died),
        _ = &mut engine_ended => return Err(WorkerError::EngineStopped),
    };
    // Ends the state streams, which have no end of their own; connections then end with the last frames of their
    // answers.
    ended.cancel();
    finish.cancel();
    let _ = timeout_at(until.max(Instant::now() + LAST_FRAMES), tasks.ended()).await;
    Ok(())
}

/// The gRPC services. Names in `health` follow their state.
async fn router(
    shared: Shared,
    guarded: bool,
) -> Result<(HealthReporter, Router<Stack<Access, Stack<DeadlineLayer, NoLayer>>>), WorkerError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    match shared.model.task() {
        Task::Generate => health.set_serving::<GenerationServer<Generate>>().await,
        Task::Embed | Task::Rerank | Task::Classify => health.set_serving::<EmbeddingsServer<Encode>>().await,
    }
    health.set_serving::<WorkerControlServer<Control>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(slm_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let open_max = shared.model.permits().limits().open_max;
    let streams_max = u32::try_from(2 * open_max + STREAMS_BESIDES).unwrap_or(u32::MAX);
    let router = Server::builder()
        // A caller on a lost node sends nothing any more; its answers must not keep their slots.
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(streams_max)
        .layer(DeadlineLayer)
        .layer(Access { guarded })
        .add_service(health_service)
        .add_service(reflection)
        .add_service(GenerationServer::new(Generate(shared.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(EmbeddingsServer::new(Encode(shared.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(TokensServer::new(Tokenize(shared.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(WorkerControlServer::new(Control(shared)));
    Ok((health, router))
}

type Events = dyn Fn(WorkerEvent) + Send + Sync;

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), WorkerError> {
    let failed = |source| WorkerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Fetches the model's files and opens them.
async fn open(
    config: &WorkerConfig,
    store: &Store,
    events: Arc<Events>,
) -> Result<(Arc<Model>, JoinHandle<()>), WorkerError> {
    let told = events.clone();
    let fetching = move |progress| told(WorkerEvent::Opening(Opening::Fetching(progress)));
    let Fetched { artifact, contents } = fetch::model(store, &config.source, &fetching).await?;
    let mut options = config.model.clone();
    options.path = artifact.path().to_owned();
    options.digest = contents;
    let opened = tokio::task::spawn_blocking(move || {
        // Keeps the files from being evicted while they are read.
        let _artifact = artifact;
        Model::open(&options, &mut |progress| events(WorkerEvent::Opening(progress)))
    });
    let opened = opened.await;
    // The model may have been converted just now, for which no room was made.
    let (trimmed, uri) = (store.clone(), config.source.shown());
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || trimmed.trim()).await {
        tracing::warn!(%error, source = uri, "the cache is not cut back to its bound");
    }
    match opened {
        Ok(opened) => Ok(opened.map(|(model, thread)| (Arc::new(model), thread))?),
        Err(_) => Err(WorkerError::EngineStopped),
    }
}

/// Waits until every answer was read or cancelled, at most `limit`.
async fn drain(model: &Model, limit: Duration) {
    let permits = model.permits();
    if timeout(limit, permits.none_open()).await.is_err() {
        let counts = permits.counts();
        tracing::warn!(?limit, ?counts, "requests were cut off: they did not end within the drain timeout");
    }
}

/// The long-lived tasks. If one ends, the process ends, rather than only seem to serve.
#[derive(Default)]
struct Tasks(JoinSet<(&'static str, String)>);

impl Tasks {
    fn spawn<E: Display>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static) {
        self.0.spawn(async move {
            let why = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => "it ended".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it panicked".to_owned(),
            };
            (name, why)
        });
    }

    /// Waits for the first task to end.
    async fn died(&mut self) -> WorkerError {
        match self.0.join_next().await {
            Some(Ok((task, why))) => WorkerError::Task { task, why },
            Some(Err(error)) => WorkerError::Task { task: "a task", why: error.to_string() },
            None => pending().await,
        }
    }

    /// Waits until all have ended.
    async fn ended(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_told_by_name() {
        for (why, task) in [("it ended", 0), ("no socket", 1), ("it panicked", 2)] {
            let mut tasks = Tasks::default();
            tasks.spawn("quiet", pending::<Result<(), Infallible>>());
            #[allow(clippy::panic)]
            tasks.spawn("state", async move {
                match task {
                    0 => Ok(()),
                    1 => Err("no socket"),
                    _ => panic!("as any code might"),
                }
            });
            let died = tasks.died().await.to_string();
            assert_eq!(died, format!("state: {why}; the worker cannot go on without it"));
        }
    }
}

//! The life of the process: open the model, serve, drain, end.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use futures::future::BoxFuture;
use slm_artifacts::{FetchError, Source, Store, StoreConfig};
use slm_proto::v1::{generation_server::GenerationServer, worker_control_server::WorkerControlServer};
use slm_tls::{FolderError, Identity};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};

use crate::{
    engine::Load,
    fetch::{self, Fetched},
    model::{Model, ModelError, ModelOptions, Opening, available_threads},
    service::{Access, Control, Generate, Shared},
    state,
    telling::Telling,
};

/// A request message at most: a prompt of a million tokens would not fit any context.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Silence after which a caller is asked whether it is there, and how long it has to say so.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The model, but for its files.
    pub model: ModelOptions,
    /// Where its files come from.
    pub source: Source,
    /// Where they and those of adapters are kept.
    pub artifacts: StoreConfig,
    /// Address of the gRPC endpoint; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder with the certificates of its swarm: only operator and routers of the swarm get in. Without it the endpoint is
    /// plain and open.
    pub tls: Option<PathBuf>,
    /// Address of probes and metrics over HTTP, if anybody wants them.
    pub probes: Option<SocketAddr>,
    /// How long running requests may take once draining begins.
    pub drain_timeout: Duration,
}

/// Milestones of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEvent {
    /// The model is being opened.
    Opening(Opening),
    /// Requests are served.
    Ready {
        /// Where.
        address: SocketAddr,
    },
}

/// The worker could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The model's files cannot be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The model cannot be served.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The address cannot be listened on.
    #[error("{address}: {source}; choose another address or stop what uses it")]
    Listen {
        /// Wanted.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] FolderError),
    /// The server failed.
    #[error("serving: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The reflection service refused the descriptors.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The engine thread ended by itself.
    #[error("the engine stopped; its last log lines say why")]
    EngineStopped,
}

/// Of so many threads that compute, one adapter at a time may take another's core: those that generate wait for it.
const THREADS_PER_PACKING: usize = 4;

/// Serves until `shutdown`, then finishes what runs.
///
/// Boxed, so that it is compiled once and here, not in every program that awaits it.
pub fn run(
    config: WorkerConfig,
    shutdown: CancellationToken,
    events: impl Fn(WorkerEvent) + Send + Sync + 'static,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    serve(config, shutdown, Arc::new(events))
}

/// Not generic, so that it is compiled here.
fn serve(
    config: WorkerConfig,
    shutdown: CancellationToken,
    events: Arc<Events>,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    Box::pin(live(config, shutdown, events))
}

async fn live(config: WorkerConfig, shutdown: CancellationToken, events: Arc<Events>) -> Result<(), WorkerError> {
    // Before the model is opened: a port in use should not cost a minute.
    let (listener, address) = listen(config.listen).await?;
    let tls = config.tls.as_deref().map(|folder| slm_tls::follow(folder, Identity::Worker)).transpose()?;
    let ended = CancellationToken::new();
    let _ended = ended.clone().drop_guard();
    let telling = Telling::new();
    if let Some(probes) = config.probes {
        let (listener, _) = listen(probes).await?;
        tokio::spawn(slm_probes::serve(listener, telling.clone(), ended.clone()));
    }
    let store = Store::open(config.artifacts.clone())?;
    let (model, engine_thread) = tokio::select! {
        opened = open(&config, &store, events.clone()) => opened?,
        // Nobody is served yet: there is nothing to finish.
        () = shutdown.cancelled() => return Ok(()),
    };

    let (draining, draining_seen) = watch::channel(false);
    let first = state::describe(&model, Load::default(), 0.0, false);
    let (state, state_seen) = watch::channel(first);
    telling.open(state_seen.clone());
    let publisher = tokio::spawn(state::publish(model.clone(), draining_seen.clone(), state, ended.clone()));

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<GenerationServer<Generate>>().await;
    health.set_serving::<WorkerControlServer<Control>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(slm_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let packing = Arc::new(Semaphore::new(available_threads().div_ceil(THREADS_PER_PACKING)));
    let shared = Shared { model: model.clone(), store, packing, draining: draining_seen, state: state_seen };
    let router = Server::builder()
        // A caller whose node is gone says nothing any more: its answers must not keep their slots.
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .layer(Access { guarded: tls.is_some() })
        .add_service(health_service)
        .add_service(reflection)
        .add_service(GenerationServer::new(Generate(shared.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(WorkerControlServer::new(Control(shared)));

    events(WorkerEvent::Ready { address });
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let finish = CancellationToken::new();
    let finished = finish.clone().cancelled_owned();
    let server = match tls {
        None => tokio::spawn(router.serve_with_incoming_shutdown(incoming, finished)),
        Some(tls) => tokio::spawn(async move {
            // The certificates are followed as long as somebody holds them.
            router.serve_with_incoming_shutdown(tls.incoming(incoming), finished).await
        }),
    };
    let engine_ended = tokio::task::spawn_blocking(move || engine_thread.join());

    tokio::pin!(engine_ended);
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        _ = &mut engine_ended => Err(WorkerError::EngineStopped),
    };
    if outcome.is_ok() {
        // Callers see it in the state stream and go elsewhere; what runs, runs to its end.
        draining.send_replace(true);
        drain(&model, config.drain_timeout).await;
    }
    ended.cancel();
    let _ = publisher.await;
    finish.cancel();
    // The state streams of routers never end by themselves; give the answers' last frames a moment, then go.
    let _ = tokio::time::timeout(Duration::from_millis(500), server).await;
    outcome
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
        // The files are read while this lives, and so must not be evicted.
        let _artifact = artifact;
        Model::open(&options, &mut |progress| events(WorkerEvent::Opening(progress)))
    });
    match opened.await {
        Ok(opened) => Ok(opened.map(|(model, thread)| (Arc::new(model), thread))?),
        Err(_) => Err(WorkerError::EngineStopped),
    }
}

/// Waits until nothing runs or waits, `limit` at most.
async fn drain(model: &Model, limit: Duration) {
    let idle = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while model.engine.busy() {
            tick.tick().await;
        }
    };
    if tokio::time::timeout(limit, idle).await.is_err() {
        tracing::warn!(?limit, "requests were cut off: they did not end within the drain timeout");
    }
}

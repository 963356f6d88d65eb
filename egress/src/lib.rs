//! The way out of a swarm: the only process that asks models of others, behind OpenAI-compatible endpoints.
//!
//! Routers decide who may leave; here a request is redacted if its policy says so, recorded, sent, and its answer passed on as it
//! comes. A request that cannot be recorded is not sent. What an endpoint has no word for is refused, not dropped.
//!
//! Modules in the order of a request's life:
//! - `service`: the gRPC service, for routers alone; `registry`: the models that there are, and the state that routers follow;
//! - `model`: the client, the places and the `circuit` of one model; `credentials`: its token;
//! - `body`: the request as JSON; `restore`: redaction out and in; `audit`: where records are written;
//! - `call`: one call, of `attempt`s, with its `record`; `sse`, `answer`: its answer, piece by piece.
//!
//! Beside it: `snapshot` and `kubernetes` (desired state), `metrics`.

mod answer;
mod attempt;
mod audit;
mod body;
mod call;
mod circuit;
mod credentials;
pub mod kubernetes;
mod metrics;
mod model;
mod record;
mod registry;
mod restore;
mod service;
mod snapshot;
mod sse;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use slm_listen::{ListenError, bind, deadline::DeadlineLayer};
use slm_probes::{Readiness, Subject};
use slm_proto::v1::egress_server::EgressServer;
use slm_tls::Identity;
use tokio::{
    sync::{oneshot, watch},
    task::JoinError,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Server, server::TcpIncoming},
};

pub use audit::{Sink, SinkError};
pub use credentials::{ClusterSecrets, Secrets};
pub use snapshot::{External, Externals};

use crate::{
    audit::Audit,
    call::Shared,
    metrics::Metrics,
    registry::Registry,
    service::{Service, admit},
};

/// Bytes of one request.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Time for the last frames of answers that a drain has cut off.
const LAST_FRAMES: Duration = Duration::from_millis(500);
/// Silence after which a router is asked whether it is there, and how long it has to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Configuration of an egress.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the gRPC endpoint. Port 0: any.
    pub grpc: SocketAddr,
    /// Folder with the certificates of its swarm: only its routers are admitted, over mutual TLS. Without it everybody is, in plain text.
    pub tls: Option<PathBuf>,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub probes: Option<SocketAddr>,
    /// Where tokens are.
    pub secrets: Secrets,
    /// Where records go.
    pub audit: Sink,
    /// Whether records have the texts, too.
    pub audit_content: bool,
    /// Time for running answers to finish after a shutdown began.
    pub drain: Duration,
}

/// Bound addresses of an egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// `slm.v1.Egress`.
    pub grpc: SocketAddr,
    /// Probes and metrics.
    pub probes: Option<SocketAddr>,
}

/// The reason why an egress could not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port could not be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] slm_tls::FolderError),
    /// Records cannot be written.
    #[error(transparent)]
    Audit(#[from] SinkError),
    /// The patterns of redaction do not compile: the build is broken.
    #[error("redaction: {0}")]
    Redaction(#[from] slm_redact::PatternError),
    /// A server ended by itself.
    #[error("gRPC: {0}")]
    Server(#[from] tonic::transport::Error),
    /// A task panicked.
    #[error("a task ended: {0}")]
    Task(#[from] JoinError),
    /// Probes ended.
    #[error("probes: {0}")]
    Probes(#[from] std::io::Error),
}

/// Serves until `shutdown` is cancelled, then drains and returns.
///
/// Boxed, so that it is compiled once and here, not in every program that awaits it.
///
/// # Errors
/// A port that is taken, an audit file that cannot be opened, or a server that failed.
pub fn run(
    config: Config,
    externals: watch::Receiver<Arc<Externals>>,
    shutdown: CancellationToken,
    bound: oneshot::Sender<Bound>,
) -> BoxFuture<'static, Result<(), RunError>> {
    Box::pin(serve(config, externals, shutdown, bound))
}

struct Probe {
    shared: Arc<Shared>,
    externals: watch::Receiver<Arc<Externals>>,
    shutdown: CancellationToken,
}

impl Subject for Probe {
    fn readiness(&self) -> Readiness {
        if self.shutdown.is_cancelled() {
            return Readiness::missing("it is shutting down");
        }
        match self.externals.borrow().generation {
            0 => Readiness::missing("no snapshot has come yet"),
            _ => Readiness::ready(),
        }
    }

    fn metrics(&self) -> String {
        self.shared.metrics.text()
    }
}

async fn serve(
    config: Config,
    externals: watch::Receiver<Arc<Externals>>,
    shutdown: CancellationToken,
    bound: oneshot::Sender<Bound>,
) -> Result<(), RunError> {
    let tls = config.tls.as_deref().map(|folder| slm_tls::follow(folder, Identity::Egress)).transpose()?;
    let grpc = bind("gRPC", config.grpc).await?;
    let probes = match config.probes {
        None => None,
        Some(address) => Some(bind("probes", address).await?),
    };
    let metrics = Arc::new(Metrics::new());
    let shared = Arc::new(Shared {
        registry: Registry::new(Arc::clone(&metrics)),
        audit: Audit::start(config.audit).await?,
        metrics,
        audit_content: config.audit_content,
        cut: CancellationToken::new(),
        redactor: slm_redact::Redactor::new()?,
    });
    let addresses = Bound { grpc: grpc.address, probes: probes.as_ref().map(|probes| probes.address) };
    tracing::info!(grpc = %addresses.grpc, probes = ?addresses.probes, "listening");
    // A caller that does not care for the addresses may drop its end.
    let _ = bound.send(addresses);

    let probe = Probe { shared: Arc::clone(&shared), externals: externals.clone(), shutdown: shutdown.clone() };
    let ended = CancellationToken::new();
    let _ended = ended.clone().drop_guard();
    let mut probing = AbortOnDropHandle::new(tokio::spawn(async move {
        match probes {
            Some(listener) => slm_probes::serve(listener.tcp, Arc::new(probe), ended).await,
            None => std::future::pending().await,
        }
    }));
    let following = Arc::clone(&shared);
    let mut following = AbortOnDropHandle::new(tokio::spawn(async move {
        following.registry.follow(externals, config.secrets).await;
    }));
    let finish = CancellationToken::new();
    let mut server = AbortOnDropHandle::new(tokio::spawn(listen(grpc, tls, Arc::clone(&shared), finish.clone())));
    tokio::select! {
        outcome = &mut server => return Ok(outcome??),
        outcome = &mut probing => return Ok(outcome??),
        // Its source is gone, which ends the process by its own way, or it panicked.
        outcome = &mut following => outcome?,
        () = shutdown.cancelled() => {}
    }
    shared.registry.drain();
    finish.cancel();
    let outcome = if let Ok(outcome) = timeout(config.drain, &mut server).await {
        Ok(outcome??)
    } else {
        tracing::warn!("answers still open after the drain: ending them");
        // Each leaves a record. Connections are tasks of their own, which do not end with the server's.
        shared.cut.cancel();
        timeout(LAST_FRAMES, &mut server).await.unwrap_or(Ok(Ok(())))??;
        Ok(())
    };
    shared.audit.close().await;
    outcome
}

async fn listen(
    listener: slm_listen::Listener,
    tls: Option<slm_tls::Tls>,
    shared: Arc<Shared>,
    finish: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = EgressServer::new(Service(shared)).max_decoding_message_size(REQUEST_BYTES_MAX);
    let router = Server::builder()
        // A router that has gone without a word is not answered.
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
        .layer(DeadlineLayer)
        .add_service(InterceptedService::new(service, admit(tls.is_some())));
    let incoming = TcpIncoming::from(listener.tcp).with_nodelay(Some(true));
    match tls {
        None => router.serve_with_incoming_shutdown(incoming, finish.cancelled_owned()).await,
        // The certificates are watched for as long as `tls` lives.
        Some(tls) => router.serve_with_incoming_shutdown(tls.incoming(incoming), finish.cancelled_owned()).await,
    }
}

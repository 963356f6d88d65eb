//! The expert dispatcher: one endpoint before every model, adapter and route of a swarm.
//!
//! Desired state comes as [`Swarm`] snapshots, observed state from the workers' state streams; the router guesses nothing
//! in between. It has no weights, no queue of work and no session: a request is resolved, decided, sent to one worker and relayed.
//! A caller that goes away takes its worker's stream with it.
//!
//! Modules in the order of a request's life:
//! - `access`: authentication and authorization of callers;
//! - `http`, `grpc`: the two servers, OpenAI-compatible and `slm.v1`;
//! - `dispatch`: one request from its name to its stream, through
//!   `resolve` (name to model, adapter or route), `classify` (outcomes of a route's rules, and `scores` for its targets), `decide` (outcomes to an expert),
//!   `eligible` (expert to the workers that have it loaded), `rank` (workers to the best one),
//!   `attempts` (retries on another worker);
//! - `retrieval`: passages of a store, put into a conversation before its expert is asked;
//! - `boundary`, `policy`, `egress`: what may leave the swarm, as types and as values, and the only way out;
//! - `started`, `cascade`: an answer that has begun, and one of a larger target instead of one that is not confident enough;
//! - `ensemble`: one answer of several experts that are asked together; `shadow`: copies of requests for a candidate; `normal`: when two answers say the same;
//! - `once`: the same for a request whose answer is one message: `encode` for vectors, scores and labels, `tokens` for the tokens of prompts;
//! - `events`, `relay`: the answer, to a caller that may read slowly.
//!
//! Beside it: `swarm` and `source` (desired state), `fleet` and `view` (observed state), `catalog`, `readiness`, `metrics`,
//! `absence` (why an expert is not served), `refusal` (every refusal), `config`.

pub mod boundary;
pub mod config;
pub mod source;
pub mod swarm;

mod absence;
mod access;

mod catalog;
mod fleet;
mod view;

mod admission;
mod attempts;
mod body_memory;
mod cascade;
mod classify;
mod decide;
mod dispatch;
mod draws;
mod egress;
mod eligible;
mod encode;
mod ensemble;
mod events;
mod normal;
mod once;
mod policy;
mod quota;
mod rank;
mod refusal;
mod resolve;
mod retrieval;
mod route;
mod scores;
mod shadow;
mod started;
mod tokens;

mod grpc;
mod http;

mod health;
mod inference;
mod metrics;
mod origins;
mod permits;
mod readiness;
mod relay;
mod throttle;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use slm_listen::bind;
use slm_tls::Identity;
use tokio::{
    sync::{oneshot, watch},
    task::JoinError,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub use access::{AccessError, TokensError};
pub use config::{Config, Limits, ReadyWhen};
pub use origins::{Origin, OriginError};
pub use readiness::{Missing, SwarmReadiness};
pub use slm_listen::ListenError;
pub use slm_retrieve::secrets::Secrets;
pub use swarm::Swarm;
pub use throttle::Rate;

use crate::{access::Access, dispatch::Dispatcher, fleet::Fleet, metrics::Metrics, readiness::ReadinessGate};

/// Entry points of the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::{
        access::fuzzing::tokens,
        http::fuzzing::{json_bodies, tensors},
    };
}

/// Bound addresses of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// OpenAI-compatible HTTP, probes and metrics.
    pub http: SocketAddr,
    /// `slm.v1`, health and reflection.
    pub grpc: SocketAddr,
    /// Probes and metrics in plain text, if they have a port of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<SocketAddr>,
}

/// The reason why a router could not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port could not be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificates for workers cannot be used.
    #[error(transparent)]
    Tls(#[from] slm_tls::FolderError),
    /// The certificate of the endpoint, or its tokens, cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// gRPC reflection could not read our own descriptors: the build is broken.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A task that the router cannot do without ended by itself. Whoever runs the router starts it again.
    #[error("the {task} task ended: {reason}")]
    Task {
        /// Name of the task or server.
        task: &'static str,
        /// The reason, as far as it is known.
        reason: String,
    },
    /// A server ended by itself.
    #[error("{server}: {reason}")]
    Server {
        /// Name of the task or server.
        server: &'static str,
        /// The error.
        reason: String,
    },
}

/// Routes until `shutdown` is cancelled or the sender of `swarm` is dropped, then withdraws, drains and returns.
///
/// `bound` learns the addresses as soon as both ports are open, before the swarm is ready; readiness is told by
/// `/readyz` and gRPC health.
///
/// Boxed, so that it is compiled once and here, not in every program that awaits it.
///
/// # Errors
/// A port that is taken, or a server that failed.
pub fn run(
    config: Config,
    swarm: watch::Receiver<Arc<Swarm>>,
    shutdown: CancellationToken,
    bound: oneshot::Sender<Bound>,
) -> BoxFuture<'static, Result<(), RunError>> {
    Box::pin(route(config, swarm, shutdown, bound))
}

async fn route(
    config: Config,
    swarm: watch::Receiver<Arc<Swarm>>,
    shutdown: CancellationToken,
    bound: oneshot::Sender<Bound>,
) -> Result<(), RunError> {
    let tls = config.tls.as_deref().map(|folder| slm_tls::follow(folder, Identity::Router)).transpose()?;
    let access = config.access.as_deref().map(Access::follow).transpose()?.unwrap_or_default();
    let http = bind("HTTP", config.http).await?;
    let grpc = bind("gRPC", config.grpc).await?;
    let probes = match config.probes {
        None => None,
        Some(address) => Some(bind("probes", address).await?),
    };
    let probed = probes.as_ref().map(|probes| probes.address);
    let addresses = Bound { http: http.address, grpc: grpc.address, probes: probed };
    tracing::info!(http = %addresses.http, grpc = %addresses.grpc, probes = ?probed, "listening");
    // A caller that does not care for the addresses may drop its end.
    let _ = bound.send(addresses);

    let withdrawing = shutdown.clone();
    let shutdown = withdraw(withdrawing.clone(), config.withdraw);
    let metrics = Arc::new(Metrics::new());
    let mut fleet = Fleet::start(swarm, &config.limits, tls, Arc::clone(&metrics), withdrawing.clone());
    let readiness = ReadinessGate { when: config.ready_when, withdrawing };
    let (mut health, health_service) = health::service(fleet.view(), readiness.clone()).await;
    let dispatcher = Arc::new(Dispatcher::new(
        &fleet,
        (config.limits.clone(), config.data_policy, config.secrets.clone()),
        Arc::clone(&metrics),
        readiness,
        shutdown.clone(),
    ));

    let shared = Arc::clone(&dispatcher);
    let mut probes = AbortOnDropHandle::new(tokio::spawn(async move {
        match probes {
            Some(probes) => http::serve_probes(probes, shared).await,
            None => std::future::pending().await,
        }
    }));
    let browsers = http::Browsers { origins: config.origins, page: config.page };
    let http = http::serve(http, Arc::clone(&dispatcher), access.clone(), browsers, shutdown.clone());
    let grpc = grpc::serve(grpc, dispatcher, access, health_service, shutdown.clone());
    let mut servers = tokio::spawn(async move { tokio::try_join!(http, grpc).map(|_| ()) });

    let outcome = tokio::select! {
        ended = &mut servers => flat("server", ended),
        ended = &mut probes => flat("probes", ended),
        ended = &mut health => flat("health", ended.map(|never| match never {})),
        ended = fleet.ended() => ended,
        () = drained(&shutdown, &config.limits) => {
            // The rest is cut off: a stream that outlives the drain has a caller that will not end it.
            tracing::warn!(drain_ms = config.limits.drain.as_millis(), "streams still open after the drain: closing them");
            servers.abort();
            Ok(())
        }
    };
    servers.abort();
    health.abort();
    fleet.stop().await;
    outcome
}

/// A task's own outcome, or that it panicked.
fn flat(task: &'static str, ended: Result<Result<(), RunError>, JoinError>) -> Result<(), RunError> {
    ended.unwrap_or_else(|error| Err(RunError::Task { task, reason: error.to_string() }))
}

/// Cancelled some time after `began` is.
fn withdraw(began: CancellationToken, wait: Duration) -> CancellationToken {
    if wait.is_zero() {
        return began;
    }
    let ended = CancellationToken::new();
    let end = ended.clone();
    tokio::spawn(async move {
        began.cancelled().await;
        tokio::time::sleep(wait).await;
        end.cancel();
    });
    ended
}

async fn drained(shutdown: &CancellationToken, limits: &Limits) {
    shutdown.cancelled().await;
    tokio::time::sleep(limits.drain).await;
}

//! The operator: reconciles the SlmModels, LoraAdapters, ExternalModels and SwarmRoutes of one namespace into worker
//! pods, and reports their status.
//!
//! Desired state comes from the API server, actual state from the workers' own state streams. There are no webhooks and
//! no finalizers: schemas and CEL rules refuse malformed objects, and every created object is owned by its model.
//! Requests do not pass through the operator: while none runs, the swarm keeps serving.
//!
//! Modules, in the order in which a manifest meets them:
//! - `objects`: one watch for each kind; `dependents`: the objects affected by a change;
//! - `model`: SlmModel to Deployment, Service and so on, in five steps; `adapter`, `external` and `route`: their
//!   status;
//!   `reconcile`: panics, metrics and backoff around every reconciliation;
//! - `fleet`: a link to every worker, over which adapters are loaded and unloaded as [`slm_residency`] decides;
//! - `gate`: the readiness gate of worker pods;
//! - `conditions`, `context`: status conditions and Events; `undecodable`: objects that do not decode.
//!
//! Around them: `lead` (everything that runs while leading), `lease` (leader election), `server` (no write without the
//! lease), `supervise` (tasks that must not end), `probe` and `metrics`, `certificates` (mutual TLS with workers),
//! `names`, `source`, `credentials`, `name_conflicts`, `config`.

pub mod config;

mod adapter;
mod certificates;
mod conditions;
mod context;
mod credentials;
mod dependents;
mod external;
mod fleet;
mod gate;
mod lead;
mod lease;
mod metrics;
mod model;
mod name_conflicts;
mod names;
mod objects;
mod probe;
mod reconcile;
mod route;
mod server;
mod source;
mod supervise;
mod undecodable;

#[cfg(test)]
mod fake;

use std::{sync::Arc, time::Instant};

use futures::future::BoxFuture;
use kube::Client;
use slm_probes::faults::panics_when_asked;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{Certificates, Config};
pub use supervise::Ended;

use crate::{
    lead::lead,
    lease::Election,
    probe::{OperatorProbe, Role},
    server::Fence,
    supervise::{TermEnd, term},
};

/// Reason why an operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The listen address of the probes is not available.
    #[error("{address}: {source}; choose another address for --probes")]
    Listen {
        /// Listen address.
        address: std::net::SocketAddr,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// No cluster is configured or reachable.
    #[error("no cluster: {0}; run in a pod, or set KUBECONFIG")]
    NoCluster(Box<kube::Error>),
    /// The probes endpoint failed.
    #[error("the probes endpoint ended: {0}")]
    Probes(String),
    /// A task that the controllers need has ended: this process cannot lead, but another one can.
    #[error("{0}; the lease is released")]
    Ended(Ended),
}

/// Runs until `shutdown`: waits for the lease, leads while it holds it, and waits again when it is lost.
///
/// Boxed, so that it is compiled once, in this crate.
///
/// # Errors
/// There is no cluster, or the controllers ended; the process should be restarted.
pub fn run(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), RunError>> {
    Box::pin(operate(config, shutdown))
}

async fn operate(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let address = config.probes;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let probe = OperatorProbe::new();
    // Probes are answered until the process ends.
    let probes = slm_probes::serve(listener, probe.clone(), CancellationToken::new());
    let client = Client::try_default().await.map_err(|error| RunError::NoCluster(Box::new(error)))?;
    tokio::select! {
        outcome = campaign(client, config, probe, shutdown) => outcome,
        ended = probes => {
            Err(RunError::Probes(ended.map_or_else(|error| error.to_string(), |()| "it was stopped".to_owned())))
        }
    }
}

/// One term of leadership after another.
async fn campaign(
    client: Client,
    config: Config,
    probe: Arc<OperatorProbe>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let fence = Fence::default();
    let mut election = Election::new(client.clone(), &config.namespace, &config.identity, fence.clone());
    tracing::info!(namespace = config.namespace, identity = config.identity, "waiting for the lease");
    while let Some(won) = election.win(&shutdown).await {
        tracing::info!("leading");
        probe.act(Role::Leading { counted: Instant::now() });
        let work = |stop| {
            let leading = lead(client.clone(), config.clone(), Arc::clone(&probe), fence.clone(), stop);
            panics_when_asked("operator-lead", leading)
        };
        let end = term(election.hold(won), work, &shutdown).await;
        match end {
            TermEnd::LeaseLost => probe.act(Role::Standby),
            TermEnd::Shutdown => {
                probe.act(Role::Standby);
                election.give_back().await;
                break;
            }
            TermEnd::Work(ended) => {
                probe.act(Role::Failed { why: ended.to_string() });
                tracing::error!(%ended, "this operator cannot lead: it releases the lease and exits");
                election.give_back().await;
                return Err(RunError::Ended(ended));
            }
        }
    }
    Ok(())
}

//! The operator: turns `SlmModel`, `LoraAdapter` and `SwarmRoute` of one namespace into worker pods that serve, and says
//! in their status what is going on.
//!
//! What should be is in the API server; what is comes from the workers' own state streams. No webhook, no finalizer:
//! schemas and CEL rules refuse what is malformed, and everything that is made is owned by its model and goes with it.
//! Requests never pass through here: while no operator runs, the swarm serves on as it is.
//!
//! In the order in which a manifest meets them:
//! - `objects`: what the API server holds, watched once a kind; `concern`: whom a change of it concerns;
//! - `model`: SlmModel to Deployment, Service and so on, in five steps; `adapter` and `route`: their status; `reconcile`:
//!   what is around each of them;
//! - `fleet`: a link to every worker, over which adapters are loaded and dropped, as [`slm_residency`] decides;
//! - `gate`: a pod is ready when its adapters are there;
//! - `conditions`, `context`: how a verdict becomes a condition and an Event; `undecodable`: of objects that cannot be read.
//!
//! And beside it: `lead` (all of it together), `lease` (who of several operators writes), `server` (nobody writes without
//! the lease), `supervise` (no task ends unseen), `telling` and `metrics`, `certificates` (mutual TLS with workers),
//! `names`, `source`, `credentials`, `taken`, `config`.

pub mod config;

mod adapter;
mod certificates;
mod concern;
mod conditions;
mod context;
mod credentials;
mod fleet;
mod gate;
mod lead;
mod lease;
mod metrics;
mod model;
mod names;
mod objects;
mod reconcile;
mod route;
mod server;
mod source;
mod supervise;
mod taken;
mod telling;
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
    server::Fence,
    supervise::{TermEnd, term},
    telling::{Role, Telling},
};

/// Why an operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address of probes cannot be had.
    #[error("{address}: {source}; choose another address for --probes")]
    Listen {
        /// Wanted.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// No cluster.
    #[error("no cluster: {0}; run in a pod, or set KUBECONFIG")]
    NoCluster(Box<kube::Error>),
    /// The endpoint of probes has failed.
    #[error("the endpoint of probes ended: {0}")]
    Probes(String),
    /// Something that the controllers need has ended: this process cannot lead, and another one can.
    #[error("{0}; the lease is given back")]
    Ended(Ended),
}

/// Runs until `shutdown`: waits for the lease, works while it holds it, and waits again when it is lost.
///
/// Boxed, so that it is compiled once and here, not in every program that awaits it.
///
/// # Errors
/// When there is no cluster to speak to, and when the controllers end: whoever runs this is to start it again.
pub fn run(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), RunError>> {
    Box::pin(operate(config, shutdown))
}

async fn operate(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let address = config.probes;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let telling = Telling::new();
    // Probes are answered to the end.
    let probes = slm_probes::serve(listener, telling.clone(), CancellationToken::new());
    let client = Client::try_default().await.map_err(|error| RunError::NoCluster(Box::new(error)))?;
    tokio::select! {
        outcome = campaign(client, config, telling, shutdown) => outcome,
        ended = probes => {
            Err(RunError::Probes(ended.map_or_else(|error| error.to_string(), |()| "it was told to".to_owned())))
        }
    }
}

/// Term after term.
async fn campaign(
    client: Client,
    config: Config,
    telling: Arc<Telling>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let fence = Fence::default();
    let mut election = Election::new(client.clone(), &config.namespace, &config.identity, fence.clone());
    tracing::info!(namespace = config.namespace, identity = config.identity, "waiting for the lease");
    while let Some(won) = election.win(&shutdown).await {
        tracing::info!("leading");
        telling.act(Role::Leading { counted: Instant::now() });
        let work = |stop| {
            let leading = lead(client.clone(), config.clone(), Arc::clone(&telling), fence.clone(), stop);
            panics_when_asked("operator-lead", leading)
        };
        let end = term(election.hold(won), work, &shutdown).await;
        match end {
            TermEnd::LeaseLost => telling.act(Role::Standby),
            TermEnd::Shutdown => {
                telling.act(Role::Standby);
                election.give_back().await;
                break;
            }
            TermEnd::Work(ended) => {
                telling.act(Role::Failed { why: ended.to_string() });
                tracing::error!(%ended, "this operator cannot lead: it gives the lease back and ends");
                election.give_back().await;
                return Err(RunError::Ended(ended));
            }
        }
    }
    Ok(())
}

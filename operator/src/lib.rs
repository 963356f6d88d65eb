//! The operator: turns `SlmModel`, `LoraAdapter` and `SwarmRoute` of one namespace into worker pods that serve, and says
//! in their status what is going on.
//!
//! What should be is in the API server; what is comes from the workers' own state streams. No webhook, no finalizer:
//! schemas and CEL rules refuse what is malformed, and everything that is made is owned by its model and goes with it.
//! Requests never pass through here: while no operator runs, the swarm serves on as it is.
//!
//! In the order in which a manifest meets them:
//! - `objects`: what the API server holds, watched;
//! - `model`: SlmModel to Deployment, Service and so on, in five steps; `adapter` and `route`: their status;
//! - `fleet`: a link to every worker, over which adapters are loaded and dropped, as [`slm_residency`] decides;
//! - `gate`: a pod is ready when its adapters are there;
//! - `conditions`, `context`: how a verdict becomes a condition and an Event.
//!
//! And beside it: `certificates` (mutual TLS with workers), `lease` (who of several operators writes), `names`, `source`, `credentials`, `taken`, `config`.

pub mod config;

mod adapter;
mod certificates;
mod conditions;
mod context;
mod credentials;
mod fleet;
mod gate;
mod lease;
mod model;
mod names;
mod objects;
mod route;
mod source;
mod taken;
mod telling;

use std::{fmt::Debug, sync::Arc};

use futures::future::BoxFuture;
use kube::{
    Client,
    runtime::{controller, reflector::ObjectRef},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use config::{Certificates, Config};

use crate::{context::Context, fleet::FleetView, lease::Election, objects::Objects, telling::Telling};

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
    /// A watch that never ends has ended.
    #[error("a watch ended; the log says why")]
    WatchEnded,
}

/// Runs until `shutdown`: waits for the lease, works while it holds it, and waits again when it is lost.
///
/// Boxed, so that it is compiled once and here, not in every program that awaits it.
///
/// # Errors
/// When there is no cluster to speak to.
pub fn run(config: Config, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), RunError>> {
    Box::pin(operate(config, shutdown))
}

async fn operate(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let address = config.probes;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let telling = Telling::new();
    tokio::spawn(slm_probes::serve(listener, telling.clone(), shutdown.clone()));
    let client = Client::try_default().await.map_err(|error| RunError::NoCluster(Box::new(error)))?;
    let mut election = Election::new(client.clone(), &config.namespace, &config.identity);
    tracing::info!(namespace = config.namespace, identity = config.identity, "waiting for the lease");
    while election.win(&shutdown).await {
        tracing::info!("leading");
        telling.lead(true);
        let stop = shutdown.child_token();
        let work = tokio::spawn(lead(client.clone(), config.clone(), stop.clone()));
        tokio::select! {
            () = election.hold(&shutdown) => {}
            () = stop.cancelled() => {}
        }
        telling.lead(false);
        stop.cancel();
        match work.await {
            Ok(outcome) => outcome?,
            Err(error) => tracing::error!(%error, "the controllers failed"),
        }
        if shutdown.is_cancelled() {
            break;
        }
    }
    Ok(())
}

/// Everything that writes, until `stop`.
async fn lead(client: Client, config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let namespace = config.namespace.clone();
    let mut watches = JoinSet::new();
    let (objects, touched) = Objects::watch(&client, &namespace, &mut watches);
    tokio::select! {
        listed = objects.listed() => listed.map_err(|_| RunError::WatchEnded)?,
        () = stop.cancelled() => return Ok(()),
    }
    let view = FleetView::default();
    let (told, concerned) = fleet::told();
    let inputs = fleet::Inputs {
        namespace: namespace.clone(),
        pods: objects.pods.clone(),
        pods_touched: touched.pods,
        adapters: objects.adapters.clone(),
        adapters_touched: touched.adapters,
        certificates: config.workers.certificates,
    };
    let context =
        Arc::new(Context::new(client.clone(), objects, view.clone(), config.workers.clone(), &config.identity));
    let fleet = tokio::spawn(fleet::run(client, inputs, view, told, stop.clone()));
    tokio::join!(
        model::run(Arc::clone(&context), namespace.clone(), concerned.models, stop.clone()),
        adapter::run(Arc::clone(&context), namespace.clone(), concerned.adapters, stop.clone()),
        route::run(context, namespace, stop),
    );
    watches.shutdown().await;
    if let Err(error) = fleet.await {
        tracing::error!(%error, "the fleet failed");
    }
    Ok(())
}

/// The end of a reconciliation, for the log. Errors were told by their own line already.
async fn ended<K, E, Q>(outcome: Result<(ObjectRef<K>, controller::Action), controller::Error<E, Q>>)
where
    K: kube::Resource<DynamicType = ()>,
    E: std::error::Error + 'static,
    Q: std::error::Error + 'static,
{
    match outcome {
        Ok((object, _)) => tracing::debug!(%object, "reconciled"),
        Err(controller::Error::QueueError(error)) => tracing::warn!(%error, "watch broke"),
        Err(error) => tracing::debug!(%error, "reconciliation ended"),
    }
}

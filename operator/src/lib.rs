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
//! And beside it: `lease` (who of several operators writes), `server` (nobody writes without the lease), `supervise` (no
//! task ends unseen), `telling` and `metrics`, `certificates` (mutual TLS with workers), `names`, `source`,
//! `credentials`, `taken`, `config`.

pub mod config;

mod adapter;
mod certificates;
mod concern;
mod conditions;
mod context;
mod credentials;
mod fleet;
mod gate;
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
use slm_watch::Watches;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

pub use config::{Certificates, Config};
pub use supervise::Ended;

use crate::{
    concern::Outlets,
    context::{Context, recorder},
    fleet::{FleetView, Marks},
    lease::Election,
    objects::Objects,
    server::{Fence, ServerClock, guarded},
    supervise::{Crew, TermEnd, term},
    telling::{Role, Telling},
};

/// Objects of a kind that may wait to be told of.
const CONCERNED_MAX: usize = 1024;

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
        let work = |stop| lead(client.clone(), config.clone(), Arc::clone(&telling), fence.clone(), stop);
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

/// Everything that writes, until `stop`.
async fn lead(
    client: Client,
    config: Config,
    telling: Arc<Telling>,
    fence: Fence,
    stop: CancellationToken,
) -> Result<(), Ended> {
    let (namespace, clock) = (config.namespace.clone(), ServerClock::default());
    let client = guarded(client, fence, clock.clone(), &namespace);
    let mut watches = Watches::new();
    let (objects, touched) = Objects::watch(&client, &namespace, &mut watches);
    telling.watch(objects.undecodable.clone());
    let failed = |why: String| Ended::Failed { task: "watches", why };
    tokio::select! {
        listed = objects.listed() => listed.map_err(|error| failed(error.to_string()))?,
        why = watches.ended() => return Err(failed(why)),
        () = stop.cancelled() => return Ok(()),
    }
    let (told, concerned) = fleet::told();
    let (routes, routes_concerned) = mpsc::channel(CONCERNED_MAX);
    let names = Marks::default();
    let outlets =
        Outlets { models: told.models.clone(), adapters: told.adapters.clone(), routes, fleet: names.clone() };
    let (view, recorder) = (FleetView::default(), recorder(client.clone(), &config.identity));
    let inputs = fleet::Inputs {
        namespace: namespace.clone(),
        objects: objects.clone(),
        pods_touched: touched.pods,
        names,
        certificates: config.workers.certificates,
        clock,
        telling: Arc::clone(&telling),
    };
    let unread = undecodable::run(client.clone(), namespace.clone(), recorder.clone(), objects.undecodable.clone());
    let changes = concern::run(objects.clone(), namespace.clone(), touched.objects, outlets);
    let context = Arc::new(Context::new(
        client.clone(),
        objects.clone(),
        view.clone(),
        config.workers.clone(),
        telling,
        recorder,
    ));
    let until = || stop.clone().cancelled_owned();
    let adapters = reconcile::controller(objects.adapters, concerned.adapters).graceful_shutdown_on(until());
    let routes = reconcile::controller(objects.routes, routes_concerned).graceful_shutdown_on(until());
    let mut crew = Crew::new(stop.clone());
    let stopped = until();
    crew.spawn_watcher("watches", async move {
        tokio::select! {
            why = watches.ended() => Some(why),
            () = stopped => None,
        }
    });
    crew.spawn("changes of objects", changes);
    crew.spawn("objects that do not decode", unread);
    crew.spawn_watcher("fleet", fleet::run(client, inputs, view, told, stop.clone()));
    crew.spawn("model controller", model::run(Arc::clone(&context), namespace, concerned.models, stop));
    crew.spawn("adapter controller", reconcile::run(adapters, Arc::clone(&context)));
    crew.spawn("route controller", reconcile::run(routes, context));
    crew.run().await
}

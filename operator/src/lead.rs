//! Everything that runs while this operator leads: watches, fleet and controllers, as one [`Crew`].

use std::sync::Arc;

use kube::Client;
use slm_watch::Watches;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    context::{Context, recorder},
    dependents::{self, Outlets},
    fleet::{self, FleetView, PendingNames},
    model,
    objects::Objects,
    probe::OperatorProbe,
    reconcile,
    server::{Fence, ServerClock, guarded},
    supervise::{Crew, Ended},
    undecodable,
};

/// Bound on pending reconcile requests of a kind.
const RECONCILE_REQUESTS_MAX: usize = 1024;

/// Runs watches, fleet and controllers until `stop`.
pub(crate) async fn lead(
    client: Client,
    config: Config,
    probe: Arc<OperatorProbe>,
    fence: Fence,
    stop: CancellationToken,
) -> Result<(), Ended> {
    let (namespace, clock) = (config.namespace.clone(), ServerClock::default());
    let client = guarded(client, fence, clock.clone(), &namespace);
    let mut watches = Watches::new();
    let (objects, touched) = Objects::watch(&client, &namespace, &mut watches);
    probe.watch(objects.undecodable.clone());
    let failed = |why: String| Ended::Failed { task: "watches", why };
    tokio::select! {
        listed = objects.listed() => listed.map_err(|error| failed(error.to_string()))?,
        why = watches.ended() => return Err(failed(why)),
        () = stop.cancelled() => return Ok(()),
    }
    let (requests, streams) = fleet::reconcile_requests();
    let (externals, external_requests) = mpsc::channel(RECONCILE_REQUESTS_MAX);
    let (routes, route_requests) = mpsc::channel(RECONCILE_REQUESTS_MAX);
    let names = PendingNames::default();
    let outlets = Outlets {
        models: requests.models.clone(),
        adapters: requests.adapters.clone(),
        externals,
        routes,
        fleet: names.clone(),
    };
    let (view, recorder) = (FleetView::default(), recorder(client.clone(), &config.identity));
    let inputs = fleet::Inputs {
        namespace: namespace.clone(),
        objects: objects.clone(),
        pods_touched: touched.pods,
        names,
        certificates: config.workers.certificates,
        hub_endpoint: config.workers.hub_endpoint.clone(),
        clock,
        probe: Arc::clone(&probe),
    };
    let unread = undecodable::run(client.clone(), namespace.clone(), recorder.clone(), objects.undecodable.clone());
    let changes = dependents::run(objects.clone(), namespace.clone(), touched.objects, outlets);
    let context =
        Arc::new(Context::new(client.clone(), objects.clone(), view.clone(), config.workers.clone(), probe, recorder));
    let until = || stop.clone().cancelled_owned();
    let adapters = reconcile::controller(objects.adapters, streams.adapters).graceful_shutdown_on(until());
    let externals = reconcile::controller(objects.externals, external_requests).graceful_shutdown_on(until());
    let routes = reconcile::controller(objects.routes, route_requests).graceful_shutdown_on(until());
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
    crew.spawn_watcher("fleet", fleet::run(client, inputs, view, requests, stop.clone()));
    crew.spawn("model controller", model::run(Arc::clone(&context), namespace, streams.models, stop));
    crew.spawn("adapter controller", reconcile::run(adapters, Arc::clone(&context)));
    crew.spawn("external model controller", reconcile::run(externals, Arc::clone(&context)));
    crew.spawn("route controller", reconcile::run(routes, context));
    crew.run().await
}

//! All that runs while this operator leads: the watches, the fleet and the controllers, as one crew.

use std::sync::Arc;

use kube::Client;
use slm_watch::Watches;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    concern::{self, Outlets},
    config::Config,
    context::{Context, recorder},
    fleet::{self, FleetView, Marks},
    model,
    objects::Objects,
    reconcile,
    server::{Fence, ServerClock, guarded},
    supervise::{Crew, Ended},
    telling::Telling,
    undecodable,
};

/// Objects of a kind that may wait to be told of.
const CONCERNED_MAX: usize = 1024;

/// Everything that writes, until `stop`.
pub(crate) async fn lead(
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

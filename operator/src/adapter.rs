//! LoraAdapter to what its model's workers hold: the fleet loads it, this tells how far it is.

mod status;

use std::sync::Arc;

use futures::StreamExt as _;
use kube::{
    Api, ResourceExt as _,
    runtime::{
        Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use slm_crds::{LoraAdapter, SlmModel, route::TargetKind};
use slm_watch::Patience;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    conditions::Verdict,
    context::{Context, Error, again},
    ended,
    objects::Objects,
    source,
    taken::name_taken,
};

/// Runs until `stop`.
pub(crate) async fn run(
    context: Arc<Context>,
    namespace: String,
    concerned: mpsc::Receiver<ObjectRef<LoraAdapter>>,
    stop: CancellationToken,
) {
    let client = context.client.clone();
    let any = watcher::Config::default;
    let controller = Controller::new(Api::<LoraAdapter>::namespaced(client.clone(), &namespace), any());
    let store = controller.store();
    controller
        .watches(Api::<SlmModel>::namespaced(client, &namespace), any(), move |model| on(&store, &model.name_any()))
        .reconcile_on(ReceiverStream::new(concerned))
        .trigger_backoff(Patience::default())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, again, context)
        .for_each(ended)
        .await;
}

/// The adapters of a model.
fn on(adapters: &Store<LoraAdapter>, model: &str) -> Vec<ObjectRef<LoraAdapter>> {
    let all = adapters.state();
    let concerned = all.iter().filter(|adapter| adapter.spec.model_ref.name == model);
    concerned.map(|adapter| ObjectRef::from_obj(adapter.as_ref())).collect()
}

async fn reconcile(adapter: Arc<LoraAdapter>, context: Arc<Context>) -> Result<Action, Error> {
    if adapter.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    match validate(&adapter, &context.objects) {
        Ok(()) => status::residency(&context, &adapter).await,
        Err(refused) => status::refused(&context, &adapter, &refused).await,
    }
}

fn validate(adapter: &LoraAdapter, objects: &Objects) -> Result<(), Verdict> {
    if let Some(taken) = name_taken(adapter, objects) {
        return Err(taken);
    }
    if let Some(why) = source::unreachable(&adapter.spec.source.uri) {
        return Err(Verdict::wrong("SourceUnreachable", why));
    }
    let name = &adapter.spec.model_ref.name;
    let reference = ObjectRef::new(name).within(&adapter.namespace().unwrap_or_default());
    if objects.models.get(&reference).is_some() {
        return Ok(());
    }
    match objects.known().dangling(TargetKind::SlmModel, name) {
        Some(dangling) => Err(Verdict::wrong("ModelNotFound", format!("{dangling}; this adapter waits for it"))),
        None => Ok(()),
    }
}

//! SlmModel to worker pods, in five steps: dereference, validate, build, apply, status.

mod apply;
mod build;
mod dereference;
mod pods;
mod status;
mod validate;

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt as _,
    runtime::{
        Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use slm_crds::{AcceleratorProfile, SlmModel};
use slm_watch::Patience;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use self::build::{Plan, build};
use crate::{
    context::{Context, Error, again},
    ended,
};

/// Runs until `stop`.
pub(crate) async fn run(
    context: Arc<Context>,
    namespace: String,
    concerned: mpsc::Receiver<ObjectRef<SlmModel>>,
    stop: CancellationToken,
) {
    let client = context.client.clone();
    let any = watcher::Config::default;
    let models: Api<SlmModel> = Api::namespaced(client.clone(), &namespace);
    let controller = Controller::new(models, any());
    let store = controller.store();
    controller
        .owns(Api::<Deployment>::namespaced(client.clone(), &namespace), any())
        .owns(Api::<Service>::namespaced(client.clone(), &namespace), any())
        .owns(Api::<ServiceAccount>::namespaced(client.clone(), &namespace), any())
        .owns(Api::<PodDisruptionBudget>::namespaced(client.clone(), &namespace), any())
        .watches(Api::<AcceleratorProfile>::all(client), any(), move |profile| on(&store, &profile.name_any()))
        .reconcile_on(ReceiverStream::new(concerned))
        .trigger_backoff(Patience::default())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, again, context)
        .for_each(ended)
        .await;
}

/// The models on an accelerator.
fn on(models: &Store<SlmModel>, profile: &str) -> Vec<ObjectRef<SlmModel>> {
    let all = models.state();
    let concerned = all.iter().filter(|model| model.spec.runtime.accelerator == profile);
    concerned.map(|model| ObjectRef::from_obj(model.as_ref())).collect()
}

async fn reconcile(model: Arc<SlmModel>, context: Arc<Context>) -> Result<Action, Error> {
    if model.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it.
        return Ok(Action::await_change());
    }
    let found = dereference::dereference(&model, &context.objects);
    let valid = match validate::validate(&model, &found, &context.objects) {
        Ok(valid) => valid,
        Err(refused) => return status::refused(&context, &model, &refused).await,
    };
    let prepared = build(Plan { model: &model, profile: &valid.profile, pods: &context.pods });
    let applied = apply::apply(&context.client, &model, prepared).await?;
    status::applied(&context, &model, &applied).await
}

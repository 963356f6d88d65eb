//! SlmModel controller, in five steps: dereference, validate, build, apply, status.

mod apply;
mod build;
mod dereference;
mod pods;
mod status;
mod validate;

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api,
    runtime::{controller::Action, reflector::ObjectRef, watcher},
};
use slm_crds::SlmModel;
use slm_watch::ReconnectBackoff;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::build::{Plan, build};
use crate::{
    conditions::Verdict,
    context::{Context, Error},
    reconcile::{self, Reconciled, controller},
};

/// Runs until `stop`.
pub(crate) async fn run(
    context: Arc<Context>,
    namespace: String,
    concerned: mpsc::Receiver<ObjectRef<SlmModel>>,
    stop: CancellationToken,
) {
    let client = || context.client.clone();
    let any = watcher::Config::default;
    let controller = controller(context.objects.models.clone(), concerned)
        .owns(Api::<Deployment>::namespaced(client(), &namespace), any())
        .owns(Api::<Service>::namespaced(client(), &namespace), any())
        .owns(Api::<ServiceAccount>::namespaced(client(), &namespace), any())
        .owns(Api::<PodDisruptionBudget>::namespaced(client(), &namespace), any())
        .trigger_backoff(ReconnectBackoff::default())
        .graceful_shutdown_on(stop.cancelled_owned());
    reconcile::run(controller, context).await;
}

impl Reconciled for SlmModel {
    async fn reconcile(self: Arc<Self>, context: Arc<Context>) -> Result<Action, Error> {
        reconcile(self, context).await
    }

    async fn refuse(&self, context: &Context, verdict: &Verdict) -> Result<Action, Error> {
        status::refused(context, self, verdict).await
    }
}

async fn reconcile(model: Arc<SlmModel>, context: Arc<Context>) -> Result<Action, Error> {
    if model.metadata.deletion_timestamp.is_some() {
        // Its objects are garbage-collected through their owner references.
        return Ok(Action::await_change());
    }
    let found = dereference::dereference(&model, &context.objects);
    let valid = match validate::validate(&model, &found, &context.objects) {
        Ok(valid) => valid,
        Err(refused) => return status::refused(&context, &model, &refused).await,
    };
    let prepared =
        build(Plan { model: &model, profile: &valid.profile, provider: valid.provider, pods: &context.pods });
    let applied = match apply::apply(&context.client, &model, prepared).await {
        Ok(applied) => applied,
        Err(error) => {
            // A policy's or the API server's own message goes into the condition.
            if let Some(refused) = apply::refusal(&error) {
                status::refused(&context, &model, &refused).await?;
            }
            return Err(error);
        }
    };
    status::applied(&context, &model, &applied).await
}

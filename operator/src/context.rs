//! Shared state of all controllers.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::{
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use slm_crds::status::Condition;

use crate::{
    conditions::{Status, Verdict, conditions},
    config::WorkerPods,
    fleet::FleetView,
    names,
    objects::Objects,
    probe::OperatorProbe,
    reconcile::Failures,
};

/// Shared by all controllers.
pub(crate) struct Context {
    /// Client of the API server.
    pub(crate) client: Client,
    /// Stores of the watched objects.
    pub(crate) objects: Objects,
    /// Latest state of all workers.
    pub(crate) fleet: FleetView,
    /// Settings common to all worker pods.
    pub(crate) pods: WorkerPods,
    /// Readiness and metrics of this operator.
    pub(crate) probe: Arc<OperatorProbe>,
    /// Backoff state of failing reconciliations.
    pub(crate) failures: Failures,
    recorder: Recorder,
}

/// A reconciliation that is retried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused, or could not be reached.
    #[error("{what}: {source}")]
    Api {
        /// Operation that failed.
        what: &'static str,
        /// Error of the API server.
        source: Box<kube::Error>,
    },
    /// A panic in the reconciler.
    #[error("the reconciler panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// Adds the operation to an error, for `map_err`.
    pub(crate) fn api(what: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Api { what, source: Box::new(source) }
    }
}

impl Context {
    /// A context whose Events go through `recorder`.
    #[must_use]
    pub(crate) fn new(
        client: Client,
        objects: Objects,
        fleet: FleetView,
        pods: WorkerPods,
        probe: Arc<OperatorProbe>,
        recorder: Recorder,
    ) -> Self {
        Self { client, objects, fleet, pods, probe, failures: Failures::default(), recorder }
    }

    /// Writes the status of `object` if it changed, and an Event if the verdict is news.
    ///
    /// # Errors
    /// The API server refused or could not be reached.
    pub(crate) async fn report<K, S>(
        &self,
        object: &K,
        before: &[Condition],
        verdict: &Verdict,
        status: impl Fn(Vec<Condition>) -> S,
        former: Option<&S>,
    ) -> Result<Action, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
        S: Serialize + PartialEq,
    {
        let now = Timestamp::now();
        let next = status(conditions(before, verdict, object.meta().generation, now));
        if former != Some(&next) {
            let patch = json!({
                "apiVersion": K::api_version(&()),
                "kind": K::kind(&()),
                "metadata": { "name": object.name_any() },
                "status": next,
            });
            let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
            let parameters = PatchParams::apply(names::MANAGER).force();
            match api.patch_status(&object.name_any(), &parameters, &Patch::Apply(patch)).await {
                Ok(_) => {}
                // The object was deleted meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Action::await_change()),
                Err(error) => return Err(Error::api("writing the status")(error)),
            }
        }
        if verdict.is_news(before) {
            self.tell(object, verdict).await;
        }
        Ok(Action::await_change())
    }

    async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, verdict: &Verdict) {
        let event = Event {
            type_: if verdict.status == Status::Wrong { EventType::Warning } else { EventType::Normal },
            reason: verdict.reason.clone().into_owned(),
            // The API limits a note to a kilobyte.
            note: Some(verdict.message.chars().take(900).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(reason = %verdict.reason, %error, "an event was not written");
        }
    }
}

/// Publisher of Events under the name `identity`.
#[must_use]
pub(crate) fn recorder(client: Client, identity: &str) -> Recorder {
    Recorder::new(client, Reporter { controller: names::MANAGER.to_owned(), instance: Some(identity.to_owned()) })
}

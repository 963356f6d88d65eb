//! What every controller works with.

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
    reconcile::Failures,
    telling::Telling,
};

/// Shared by all controllers.
pub(crate) struct Context {
    /// The API server.
    pub(crate) client: Client,
    /// Its objects.
    pub(crate) objects: Objects,
    /// The workers.
    pub(crate) fleet: FleetView,
    /// What their pods are made of.
    pub(crate) pods: WorkerPods,
    /// What is told of all this.
    pub(crate) telling: Arc<Telling>,
    /// Reconciliations that fail.
    pub(crate) failures: Failures,
    recorder: Recorder,
}

/// A reconciliation that has to be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused, or could not be reached.
    #[error("{what}: {source}")]
    Api {
        /// What was being done.
        what: &'static str,
        /// Its words.
        source: Box<kube::Error>,
    },
    /// A fault of our own.
    #[error("it panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// For `map_err`.
    pub(crate) fn api(what: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Api { what, source: Box::new(source) }
    }
}

impl Context {
    /// A context that writes Events by `recorder`.
    #[must_use]
    pub(crate) fn new(
        client: Client,
        objects: Objects,
        fleet: FleetView,
        pods: WorkerPods,
        telling: Arc<Telling>,
        recorder: Recorder,
    ) -> Self {
        Self { client, objects, fleet, pods, telling, failures: Failures::default(), recorder }
    }

    /// Writes what is known of `object`, if it says anything new, and an Event if that is worth one.
    ///
    /// # Errors
    /// What the API server says.
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
                // Deleted meanwhile: there is nobody to tell.
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
            // The API takes a kilobyte.
            note: Some(verdict.message.chars().take(900).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(reason = %verdict.reason, %error, "an event was not written");
        }
    }
}

/// What writes Events as `identity`.
#[must_use]
pub(crate) fn recorder(client: Client, identity: &str) -> Recorder {
    Recorder::new(client, Reporter { controller: names::MANAGER.to_owned(), instance: Some(identity.to_owned()) })
}

//! What the API server holds, as this operator last heard: one watch a kind, shared by everyone who looks across kinds.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        reflector::{Store, store::WriterDropped},
        watcher,
    },
};
use slm_crds::{AcceleratorProfile, LoraAdapter, SlmModel, SwarmRoute, names::Known};
use slm_watch::{Tell, watch};
use tokio::{sync::mpsc, task::JoinSet};

use crate::names;

/// Names that may wait to be told of; the watch waits beyond that.
const TOUCHED_MAX: usize = 1024;

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// Base models.
    pub(crate) models: Store<SlmModel>,
    /// Experts.
    pub(crate) adapters: Store<LoraAdapter>,
    /// Routes.
    pub(crate) routes: Store<SwarmRoute>,
    /// Accelerators.
    pub(crate) profiles: Store<AcceleratorProfile>,
    /// Worker pods.
    pub(crate) pods: Store<Pod>,
}

/// What of them changed.
#[derive(Debug)]
pub(crate) struct Touched {
    /// Adapters by name.
    pub(crate) adapters: mpsc::Receiver<String>,
    /// Some pod.
    pub(crate) pods: mpsc::Receiver<()>,
}

impl Objects {
    /// Begins to watch; the watches run in `tasks`.
    pub(crate) fn watch(client: &Client, namespace: &str, tasks: &mut JoinSet<()>) -> (Self, Touched) {
        let (adapters, adapters_touched) = mpsc::channel(TOUCHED_MAX);
        let (pods, pods_touched) = mpsc::channel(1);
        let ours = watcher::Config::default().labels(&format!(
            "app.kubernetes.io/managed-by={},{}",
            names::MANAGER,
            names::MODEL
        ));
        let any = watcher::Config::default;
        let namespaced = |_: ()| client.clone();
        let objects = Self {
            models: watch(Api::namespaced(namespaced(()), namespace), any(), Tell::Nobody, tasks),
            adapters: watch(Api::namespaced(namespaced(()), namespace), any(), Tell::Names(adapters), tasks),
            routes: watch(Api::namespaced(namespaced(()), namespace), any(), Tell::Nobody, tasks),
            profiles: watch(Api::all(client.clone()), any(), Tell::Nobody, tasks),
            pods: watch(Api::namespaced(namespaced(()), namespace), ours, Tell::Something(pods), tasks),
        };
        (objects, Touched { adapters: adapters_touched, pods: pods_touched })
    }

    /// The names that references may lead to: a copy of all, for the message about one that is missing.
    #[must_use]
    pub(crate) fn known(&self) -> Known {
        let models = self.models.state().iter().map(|model| model.name_any()).collect();
        let adapters = self.adapters.state().iter().map(|adapter| adapter.name_any()).collect();
        Known { models, adapters }
    }

    /// Waits until each has been listed once.
    ///
    /// # Errors
    /// When a watch has ended, which none does before the operator.
    pub(crate) async fn listed(&self) -> Result<(), WriterDropped> {
        self.models.wait_until_ready().await?;
        self.adapters.wait_until_ready().await?;
        self.routes.wait_until_ready().await?;
        self.profiles.wait_until_ready().await?;
        self.pods.wait_until_ready().await
    }
}

//! What the API server holds, as this operator last heard: one watch a kind, shared by everyone who looks across kinds.

use std::fmt::Debug;

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store, store::Writer},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use slm_crds::{AcceleratorProfile, LoraAdapter, SlmModel, SwarmRoute};
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
            models: reflect(Api::namespaced(namespaced(()), namespace), any(), tasks, None),
            adapters: reflect(Api::namespaced(namespaced(()), namespace), any(), tasks, Some(Tell::Names(adapters))),
            routes: reflect(Api::namespaced(namespaced(()), namespace), any(), tasks, None),
            profiles: reflect(Api::all(client.clone()), any(), tasks, None),
            pods: reflect(Api::namespaced(namespaced(()), namespace), ours, tasks, Some(Tell::Something(pods))),
        };
        (objects, Touched { adapters: adapters_touched, pods: pods_touched })
    }

    /// Waits until each has been listed once.
    ///
    /// # Errors
    /// When a watch has ended, which none does before the operator.
    pub(crate) async fn listed(&self) -> Result<(), reflector::store::WriterDropped> {
        self.models.wait_until_ready().await?;
        self.adapters.wait_until_ready().await?;
        self.routes.wait_until_ready().await?;
        self.profiles.wait_until_ready().await?;
        self.pods.wait_until_ready().await
    }
}

enum Tell {
    Names(mpsc::Sender<String>),
    /// One mark is enough for any number of changes.
    Something(mpsc::Sender<()>),
}

fn reflect<K>(api: Api<K>, config: watcher::Config, tasks: &mut JoinSet<()>, tell: Option<Tell>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    tasks.spawn(follow(api, config, writer, store.clone(), tell));
    store
}

async fn follow<K>(api: Api<K>, config: watcher::Config, writer: Writer<K>, store: Store<K>, tell: Option<Tell>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = reflector::reflector(writer, watcher::watcher(api, config)).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let names = match event {
            // A broken watch is opened again; what it missed comes with the next listing.
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "watch broke");
                continue;
            }
            Ok(Event::Apply(object) | Event::Delete(object)) => vec![object.name_any()],
            Ok(Event::InitDone) => store.state().iter().map(|object| object.name_any()).collect(),
            Ok(Event::Init | Event::InitApply(_)) => continue,
        };
        match &tell {
            None => {}
            Some(Tell::Names(touched)) => {
                for name in names {
                    if touched.send(name).await.is_err() {
                        return;
                    }
                }
            }
            Some(Tell::Something(touched)) => {
                // Full means that a mark is there already.
                let _ = touched.try_send(());
            }
        }
    }
}

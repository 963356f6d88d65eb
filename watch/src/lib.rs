//! Watches of Kubernetes objects, as the operator and the routers keep them: a store that is always the last that was
//! heard, and a word when it changed. While the API server is away, the stores stay as they are.

mod patience;

use std::fmt::Debug;

use futures::{StreamExt as _, pin_mut};
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store, store::Writer},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

pub use patience::Patience;

/// Who hears of changes.
#[derive(Clone, Debug)]
pub enum Tell {
    /// Nobody.
    Nobody,
    /// The name of each object that changed.
    Names(mpsc::Sender<String>),
    /// That something changed; one mark is enough for any number of changes.
    Something(mpsc::Sender<()>),
}

impl Tell {
    /// False when nobody listens any more.
    async fn of(&self, names: impl Iterator<Item = String>) -> bool {
        match self {
            Self::Nobody => true,
            Self::Names(touched) => {
                for name in names {
                    if touched.send(name).await.is_err() {
                        return false;
                    }
                }
                true
            }
            Self::Something(touched) => {
                // Full means that a mark is there already.
                !matches!(touched.try_send(()), Err(mpsc::error::TrySendError::Closed(())))
            }
        }
    }
}

/// Keeps objects of one kind, in a task of `watches`.
pub fn watch<K>(api: Api<K>, config: watcher::Config, tell: Tell, watches: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    watches.spawn(follow(api, config, writer, store.clone(), tell));
    store
}

async fn follow<K>(api: Api<K>, config: watcher::Config, writer: Writer<K>, store: Store<K>, tell: Tell)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = reflector::reflector(writer, watcher::watcher(api, config)).backoff(Patience::default());
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let told = match event {
            // A broken watch is opened again; what it missed comes with the next listing.
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "watch broke");
                true
            }
            Ok(Event::Apply(object) | Event::Delete(object)) => tell.of([object.name_any()].into_iter()).await,
            Ok(Event::InitDone) => tell.of(store.state().iter().map(|object| object.name_any())).await,
            Ok(Event::Init | Event::InitApply(_)) => true,
        };
        if !told {
            return;
        }
    }
}

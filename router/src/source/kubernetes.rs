//! Snapshots from a cluster: objects and the workers' addresses, watched. What each worker holds, it says itself.
//!
//! While the API server is away the last snapshot stays: serving needs no control plane.

mod snapshot;

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use slm_crds::{LoraAdapter, SlmModel, SwarmRoute};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::Swarm;

/// Label of everything that belongs to a model's workers.
const MODEL: &str = "slmswarm.io/model";
/// Several objects that are applied at once are one snapshot.
const GATHER: Duration = Duration::from_millis(5);

/// How the workers of a cluster are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In plain text.
    Http,
    /// Over TLS.
    Https,
}

/// Why there are no snapshots.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// No cluster.
    #[error("no cluster: {0}; run in a pod, or set KUBECONFIG")]
    NoCluster(Box<kube::Error>),
    /// A watch that never ends has ended.
    #[error("a watch ended; the log says why")]
    WatchEnded,
}

struct Stores {
    models: Store<SlmModel>,
    adapters: Store<LoraAdapter>,
    routes: Store<SwarmRoute>,
    slices: Store<EndpointSlice>,
}

/// Publishes a snapshot of `namespace` whenever it changed, until `swarm` has no reader any more.
///
/// # Errors
/// When there is no cluster to speak to.
pub async fn follow(namespace: &str, scheme: Scheme, swarm: watch::Sender<Arc<Swarm>>) -> Result<(), KubernetesError> {
    let client = Client::try_default().await.map_err(|error| KubernetesError::NoCluster(Box::new(error)))?;
    let mut watches = JoinSet::new();
    // One mark is enough for any number of changes.
    let (touched, mut touches) = mpsc::channel(1);
    let any = watcher::Config::default;
    let stores = Stores {
        models: reflect(Api::namespaced(client.clone(), namespace), any(), &touched, &mut watches),
        adapters: reflect(Api::namespaced(client.clone(), namespace), any(), &touched, &mut watches),
        routes: reflect(Api::namespaced(client.clone(), namespace), any(), &touched, &mut watches),
        slices: reflect(Api::namespaced(client, namespace), any().labels(MODEL), &touched, &mut watches),
    };
    stores.listed().await.map_err(|_| KubernetesError::WatchEnded)?;
    loop {
        stores.publish(scheme, &swarm);
        tokio::select! {
            () = swarm.closed() => return Ok(()),
            mark = touches.recv() => if mark.is_none() { return Err(KubernetesError::WatchEnded) },
        }
        tokio::time::sleep(GATHER).await;
        // What came meanwhile is part of the same picture.
        let _ = touches.try_recv();
    }
}

impl Stores {
    async fn listed(&self) -> Result<(), reflector::store::WriterDropped> {
        self.models.wait_until_ready().await?;
        self.adapters.wait_until_ready().await?;
        self.routes.wait_until_ready().await?;
        self.slices.wait_until_ready().await
    }

    fn publish(&self, scheme: Scheme, swarm: &watch::Sender<Arc<Swarm>>) {
        let next = snapshot::snapshot(
            scheme,
            &self.models.state(),
            &self.adapters.state(),
            &self.routes.state(),
            &self.slices.state(),
        );
        swarm.send_if_modified(|current| {
            let generation = current.generation;
            let same = generation > 0 && Swarm { generation, ..next.clone() } == **current;
            if !same {
                *current = Arc::new(Swarm { generation: generation + 1, ..next });
            }
            !same
        });
    }
}

fn reflect<K>(api: Api<K>, config: watcher::Config, touched: &mpsc::Sender<()>, watches: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    watches.spawn(keep(api, config, writer, touched.clone()));
    store
}

async fn keep<K>(api: Api<K>, config: watcher::Config, writer: Writer<K>, touched: mpsc::Sender<()>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = reflector::reflector(writer, watcher::watcher(api, config)).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            // A broken watch is opened again; what it missed comes with the next listing.
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch broke"),
            Ok(_) => {
                // Full means that a mark is there already.
                let _ = touched.try_send(());
            }
        }
    }
}

//! Snapshots from a cluster: objects and the workers' addresses, watched. Loaded adapters come from the workers' state streams.
//!
//! While the API server is away the last snapshot stays: serving needs no control plane.

mod snapshot;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    runtime::{
        reflector::{Store, store::WriterDropped},
        watcher,
    },
};
use slm_crds::{ExternalModel, LoraAdapter, SlmModel, SwarmRoute};
use slm_watch::{Tell, Undecodable, Watches};
use tokio::sync::{mpsc, watch as channel};

use self::snapshot::Objects;
use crate::Swarm;

/// Label of everything that belongs to a model's workers.
const MODEL: &str = "slmswarm.io/model";
/// Label of everything that belongs to the egress.
const EGRESS: &str = "slmswarm.io/egress";
/// Several objects that are applied at once are one snapshot.
const GATHER: Duration = Duration::from_millis(5);

/// Scheme of the workers' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In plain text.
    Http,
    /// Over TLS.
    Https,
}

/// The reason why there are no snapshots.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// No cluster.
    #[error("no cluster: {0}; run in a pod, or set KUBECONFIG")]
    NoCluster(Box<kube::Error>),
    /// A watch that never ends has ended.
    #[error("{0}; the cluster is no longer watched, so the router ends to be started again")]
    WatchEnded(String),
}

struct Stores {
    models: Store<SlmModel>,
    adapters: Store<LoraAdapter>,
    routes: Store<SwarmRoute>,
    externals: Store<ExternalModel>,
    slices: Store<EndpointSlice>,
    egress: Store<EndpointSlice>,
    undecodable: Undecodable,
}

/// Publishes a snapshot of `namespace` whenever it changed, until `swarm` has no reader any more.
///
/// Boxed, so that it is compiled once and here, not in every program that awaits it.
///
/// # Errors
/// No cluster to connect to.
pub fn follow(
    namespace: &str,
    scheme: Scheme,
    swarm: channel::Sender<Arc<Swarm>>,
) -> BoxFuture<'_, Result<(), KubernetesError>> {
    Box::pin(publish(namespace, scheme, swarm))
}

async fn publish(namespace: &str, scheme: Scheme, swarm: channel::Sender<Arc<Swarm>>) -> Result<(), KubernetesError> {
    let client = Client::try_default().await.map_err(|error| KubernetesError::NoCluster(Box::new(error)))?;
    let mut watches = Watches::new();
    // One mark is enough for any number of changes.
    let (touched, mut touches) = mpsc::channel(1);
    let touched = Tell::<()>::Something(touched);
    let any = watcher::Config::default;
    let stores = Stores {
        models: watches.watch(Api::namespaced(client.clone(), namespace), any(), touched.clone()),
        adapters: watches.watch(Api::namespaced(client.clone(), namespace), any(), touched.clone()),
        routes: watches.watch(Api::namespaced(client.clone(), namespace), any(), touched.clone()),
        externals: watches.watch(Api::namespaced(client.clone(), namespace), any(), touched.clone()),
        slices: watches.watch(Api::namespaced(client.clone(), namespace), any().labels(MODEL), touched.clone()),
        egress: watches.watch(Api::namespaced(client, namespace), any().labels(EGRESS), touched),
        undecodable: watches.undecodable(),
    };
    tokio::select! {
        listed = stores.listed() => listed.map_err(|error| KubernetesError::WatchEnded(error.to_string()))?,
        why = watches.ended() => return Err(KubernetesError::WatchEnded(why)),
    }
    loop {
        stores.publish(scheme, &swarm);
        tokio::select! {
            () = swarm.closed() => return Ok(()),
            why = watches.ended() => return Err(KubernetesError::WatchEnded(why)),
            Some(()) = touches.recv() => {}
        }
        tokio::time::sleep(GATHER).await;
        // What came meanwhile is part of the same picture.
        let _ = touches.try_recv();
    }
}

impl Stores {
    async fn listed(&self) -> Result<(), WriterDropped> {
        self.models.wait_until_ready().await?;
        self.adapters.wait_until_ready().await?;
        self.routes.wait_until_ready().await?;
        self.externals.wait_until_ready().await?;
        self.slices.wait_until_ready().await?;
        self.egress.wait_until_ready().await
    }

    fn publish(&self, scheme: Scheme, swarm: &channel::Sender<Arc<Swarm>>) {
        let next = snapshot::snapshot(
            scheme,
            &Objects {
                models: &self.models.state(),
                adapters: &self.adapters.state(),
                externals: &self.externals.state(),
                routes: &self.routes.state(),
                slices: &self.slices.state(),
                egress: &self.egress.state(),
                undecodable: &self.undecodable.all(),
            },
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

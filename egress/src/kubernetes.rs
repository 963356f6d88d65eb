//! The models outside of a cluster's namespace, watched.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kube::{Api, Client, ResourceExt as _, runtime::watcher};
use slm_crds::ExternalModel;
use slm_watch::{Tell, Watches};
use tokio::sync::{mpsc, watch};

use crate::snapshot::{External, Externals};

/// Several objects that are applied at once are one snapshot.
const GATHER: Duration = Duration::from_millis(5);

/// No cluster.
#[derive(Debug, thiserror::Error)]
#[error("no cluster: {0}; run in a pod, or set KUBECONFIG")]
pub struct NoCluster(Box<kube::Error>);

/// A client of the cluster that its pod is in, or of that of KUBECONFIG.
///
/// # Errors
/// There is none.
pub async fn client() -> Result<Client, NoCluster> {
    Client::try_default().await.map_err(|error| NoCluster(Box::new(error)))
}

/// A watch that ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}; the cluster is no longer watched, so the egress ends to be started again")]
pub struct WatchEnded(String);

/// Publishes a snapshot of `namespace` whenever it changed, until `externals` has no reader any more. While the API server is away the
/// last snapshot stays.
///
/// Boxed, so that it is compiled once and here, not in every program that awaits it.
///
/// # Errors
/// A watch that never ends has ended.
pub fn follow(
    client: Client,
    namespace: &str,
    externals: watch::Sender<Arc<Externals>>,
) -> BoxFuture<'_, Result<(), WatchEnded>> {
    Box::pin(publish(client, namespace, externals))
}

async fn publish(client: Client, namespace: &str, externals: watch::Sender<Arc<Externals>>) -> Result<(), WatchEnded> {
    let mut watches = Watches::new();
    // One mark is enough for any number of changes.
    let (touched, mut touches) = mpsc::channel(1);
    let api = Api::namespaced(client, namespace);
    let store = watches.watch(api, watcher::Config::default(), Tell::<()>::Something(touched));
    tokio::select! {
        listed = store.wait_until_ready() => listed.map_err(|error| WatchEnded(error.to_string()))?,
        why = watches.ended() => return Err(WatchEnded(why)),
    }
    loop {
        let mut now: Vec<Arc<ExternalModel>> = store.state();
        now.retain(|external| external.metadata.deletion_timestamp.is_none());
        now.sort_by_key(|external| external.name_any());
        let listed = now.iter().map(|it| External { name: it.name_any(), spec: it.spec.clone() });
        let next = Externals { generation: 0, externals: listed.collect() };
        externals.send_if_modified(|current| {
            let same = current.generation > 0 && current.externals == next.externals;
            if !same {
                *current = Arc::new(Externals { generation: current.generation + 1, ..next });
            }
            !same
        });
        tokio::select! {
            () = externals.closed() => return Ok(()),
            why = watches.ended() => return Err(WatchEnded(why)),
            Some(()) = touches.recv() => {}
        }
        tokio::time::sleep(GATHER).await;
        // What came meanwhile is part of the same picture.
        let _ = touches.try_recv();
    }
}

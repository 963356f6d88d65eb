//! The line to one worker: its state as it comes, and adapters in and out.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use slm_proto::v1::{
    AdapterPhase, LoadAdapterRequest, UnloadAdapterRequest, WatchStateRequest, WorkerState,
    worker_control_client::WorkerControlClient,
};
use tokio::sync::mpsc;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::event::Event;
use crate::reconcile::{Version, WorkerId};

/// A worker whose stream broke is alive as long as its process is.
const RECONNECT: Duration = Duration::from_millis(50);

/// A connected worker. Dropping it stops the watching.
#[derive(Debug)]
pub struct WorkerLink {
    id: WorkerId,
    client: WorkerControlClient<Channel>,
    events: mpsc::Sender<Event>,
    watching: tokio::task::AbortHandle,
}

impl WorkerLink {
    /// Connects to a worker and passes on its states.
    ///
    /// # Errors
    /// When the address is none.
    pub fn open(id: WorkerId, address: &str, events: mpsc::Sender<Event>) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(address.to_owned())?.connect_lazy();
        let client = WorkerControlClient::new(channel);
        let watching = tokio::spawn(watch(id, client.clone(), events.clone())).abort_handle();
        Ok(Self { id, client, events, watching })
    }

    /// Asks for an adapter.
    pub fn load(&self, name: String, path: PathBuf, version: Version) {
        let (id, events, mut client) = (self.id, self.events.clone(), self.client.clone());
        tokio::spawn(async move {
            let request = LoadAdapterRequest {
                name: name.clone(),
                source: format!("file:{}", path.display()),
                digest: version.digest.clone(),
                scale: Some(version.scale),
                credentials: String::new(),
            };
            let outcome = client.load_adapter(request).await.map(|_| ());
            let _ = events.send(Event::Loaded(id, name, version, outcome)).await;
        });
    }

    /// Asks to drop one.
    pub fn unload(&self, name: String, digest: String) {
        let (id, events, mut client) = (self.id, self.events.clone(), self.client.clone());
        tokio::spawn(async move {
            let request = UnloadAdapterRequest { name: name.clone(), digest };
            let outcome = client.unload_adapter(request).await.map(|_| ());
            let _ = events.send(Event::Unloaded(id, name, outcome)).await;
        });
    }
}

impl Drop for WorkerLink {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

async fn watch(id: WorkerId, mut client: WorkerControlClient<Channel>, events: mpsc::Sender<Event>) {
    loop {
        if let Ok(states) = client.watch_state(WatchStateRequest {}).await {
            let mut states = states.into_inner();
            while let Ok(Some(state)) = states.message().await {
                if events.send(Event::State(id, Box::new(state))).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// What new requests on the worker may name.
pub fn resident(state: &WorkerState) -> BTreeMap<String, Version> {
    let serving = state.adapters.iter().filter(|adapter| adapter.phase() == AdapterPhase::Serving);
    serving
        .map(|adapter| (adapter.name.clone(), Version { digest: adapter.digest.clone(), scale: adapter.scale }))
        .collect()
}

/// Whether the same load may go well later without anybody changing anything.
pub fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::ResourceExhausted | Code::Unavailable | Code::Aborted | Code::Cancelled | Code::DeadlineExceeded
    )
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::AdapterState;

    use super::*;

    #[test]
    fn only_serving_versions_are_resident() {
        let adapter = |digest: &str, phase: AdapterPhase| AdapterState {
            name: "banking".to_owned(),
            digest: digest.to_owned(),
            phase: phase.into(),
            scale: 1.0,
            ..Default::default()
        };
        let adapters = vec![adapter("new", AdapterPhase::Serving), adapter("old", AdapterPhase::Retiring)];
        let resident = resident(&WorkerState { adapters, ..Default::default() });
        assert_eq!(resident["banking"].digest, "new");
    }
}

//! The connection to one worker: its state stream, and requests to load and drop.

use std::time::Duration;

use slm_proto::v1::{
    LoadAdapterRequest, UnloadAdapterRequest, WatchStateRequest, WorkerState,
    worker_control_client::WorkerControlClient,
};
use slm_tls::{Identity, Tls};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::residency::Version;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A worker that answers no ping for this long is gone, even if its node never said so.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts to reach a worker: it has just been started, or has just died.
const RECONNECT: Duration = Duration::from_millis(100);

/// What a link tells.
#[derive(Debug)]
pub(super) enum Event {
    /// What the worker says, or why it says nothing.
    State(Result<WorkerState, String>),
    /// A load ended.
    Loaded { name: String, version: Version, outcome: Result<(), Status> },
    /// A drop ended.
    Unloaded { name: String, outcome: Result<(), Status> },
}

/// Why a worker cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadAddress {
    /// Not one.
    #[error(transparent)]
    Malformed(#[from] tonic::transport::Error),
    /// None for this operator.
    #[error(transparent)]
    Unfit(#[from] slm_tls::client::AddressError),
}

/// An event, and whose.
pub(super) type FromLink = (String, u64, Event);

/// A worker that is spoken to. Dropping it ends the stream; requests that were sent run on and are not listened to.
#[derive(Debug)]
pub(super) struct Link {
    id: u64,
    pod: String,
    client: WorkerControlClient<Channel>,
    events: mpsc::Sender<FromLink>,
    _watching: AbortOnDropHandle<()>,
}

impl Link {
    /// Connects when it is first used, and again whenever the connection breaks.
    pub(super) fn new(
        pod: &str,
        id: u64,
        address: &str,
        tls: Option<&Tls>,
        events: mpsc::Sender<FromLink>,
    ) -> Result<Self, BadAddress> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = slm_tls::client::channel(&endpoint, Identity::Worker, tls)?;
        let client = WorkerControlClient::new(channel);
        let watching = tokio::spawn(watch(pod.to_owned(), id, client.clone(), events.clone()));
        Ok(Self { id, pod: pod.to_owned(), client, events, _watching: AbortOnDropHandle::new(watching) })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn load(&self, name: String, version: Version) {
        self.load_with(name, version, async { Ok(String::new()) });
    }

    /// Loads with credentials that have to be read first.
    pub(super) fn load_with(
        &self,
        name: String,
        version: Version,
        credentials: impl Future<Output = Result<String, String>> + Send + 'static,
    ) {
        let mut client = self.client.clone();
        self.answer(async move {
            let outcome = match credentials.await {
                Err(why) => Err(Status::unavailable(why)),
                Ok(credentials) => client.load_adapter(request(&name, &version, credentials)).await.map(|_| ()),
            };
            Event::Loaded { name, version, outcome }
        });
    }

    pub(super) fn unload(&self, name: String, digest: String) {
        let mut client = self.client.clone();
        self.answer(async move {
            let request = UnloadAdapterRequest { name: name.clone(), digest };
            let outcome = client.unload_adapter(request).await.map(|_| ());
            Event::Unloaded { name, outcome }
        });
    }

    fn answer(&self, request: impl Future<Output = Event> + Send + 'static) {
        let (pod, id, events) = (self.pod.clone(), self.id, self.events.clone());
        tokio::spawn(async move {
            let event = request.await;
            // Nobody listens any more only when the operator ends.
            let _ = events.send((pod, id, event)).await;
        });
    }
}

fn request(name: &str, version: &Version, credentials: String) -> LoadAdapterRequest {
    LoadAdapterRequest {
        name: name.to_owned(),
        source: version.source.clone(),
        digest: version.digest.clone().unwrap_or_default(),
        scale: Some(version.scale),
        credentials,
    }
}

async fn watch(pod: String, id: u64, mut client: WorkerControlClient<Channel>, events: mpsc::Sender<FromLink>) {
    let mut down = false;
    loop {
        let why = match client.watch_state(WatchStateRequest {}).await {
            Ok(states) => {
                let mut states = states.into_inner();
                loop {
                    match states.message().await {
                        Ok(Some(state)) => {
                            down = false;
                            if events.send((pod.clone(), id, Event::State(Ok(state)))).await.is_err() {
                                return;
                            }
                        }
                        Ok(None) => break "it ended its state stream".to_owned(),
                        Err(status) => break innermost(&status),
                    }
                }
            }
            Err(status) => innermost(&status),
        };
        // Said once, however long it lasts.
        if !down && events.send((pod.clone(), id, Event::State(Err(why)))).await.is_err() {
            return;
        }
        down = true;
        tokio::time::sleep(RECONNECT).await;
    }
}

/// "connection refused" says more than "transport error".
fn innermost(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    cause.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

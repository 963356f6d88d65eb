//! The client of one worker: its state stream, and requests to load and unload adapters.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use slm_proto::v1::{
    LoadAdapterRequest, UnloadAdapterRequest, WorkerState, worker_control_client::WorkerControlClient,
};
use slm_tls::{Identity, Tls};
use tokio::{sync::mpsc, task::AbortHandle, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, transport::Channel};

use crate::{
    action::AdapterAction,
    pause::FIRST_PAUSE,
    state_stream::{self, StateStream},
    version::Version,
};

/// Longest pause between attempts to reach a worker. The first ones are short: it has just started, or has just died.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest load; after that it is cancelled and requested again. 500 MB within it are 7 Mbit/s, and the part that was
/// fetched is kept. Readiness does not wait for it that long: see [`LOAD_WAIT_MAX`](crate::holdings::LOAD_WAIT_MAX).
pub const LOAD_MAX: Duration = Duration::from_secs(600);
/// Longest unload; after that it is requested again. It only removes a name from a table.
pub const UNLOAD_MAX: Duration = Duration::from_secs(10);

/// An event of a worker's client.
#[derive(Debug)]
pub enum Event {
    /// A state of the worker, or the reason why its stream broke.
    State(Result<WorkerState, String>),
    /// End of a load. The resident adapters come with the next state.
    Loaded {
        /// Name of the adapter.
        name: String,
        /// The version.
        version: Version,
        /// The outcome.
        outcome: Result<(), Status>,
    },
    /// End of an unload.
    Unloaded {
        /// Name of the adapter.
        name: String,
        /// The version.
        digest: String,
        /// The outcome.
        outcome: Result<(), Status>,
    },
}

/// An address that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadAddress {
    /// Malformed.
    #[error(transparent)]
    Malformed(#[from] tonic::transport::Error),
    /// Not an address for this TLS configuration.
    #[error(transparent)]
    Unfit(#[from] slm_tls::client::AddressError),
}

/// The client of one worker. `W` identifies the worker, with its incarnation, for the receiver of events. Dropping the client
/// ends the state stream; requests that were sent run on, and their outcome is still sent.
#[derive(Debug)]
pub struct WorkerClient<W> {
    worker: W,
    client: WorkerControlClient<Channel>,
    events: mpsc::Sender<(W, Event)>,
    /// Loads that run, by adapter.
    loads: Mutex<HashMap<String, AbortHandle>>,
    _watching: AbortOnDropHandle<()>,
}

impl<W: Clone + Send + 'static> WorkerClient<W> {
    /// A client of the worker at `address`, `IP:PORT`, over `tls` or in plain text. Connects at the first use, and again whenever
    /// the connection breaks.
    ///
    /// # Errors
    /// A malformed address, or one that does not fit `tls`.
    pub fn open(
        worker: W,
        address: &str,
        tls: Option<&Tls>,
        events: mpsc::Sender<(W, Event)>,
    ) -> Result<Self, BadAddress> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = state_stream::endpoint(format!("{scheme}://{address}"))?;
        let channel = slm_tls::client::channel(&endpoint, Identity::Worker, tls)?;
        let client = WorkerControlClient::new(channel.clone());
        let watching = tokio::spawn(watch(worker.clone(), channel, events.clone()));
        Ok(Self { worker, client, events, loads: Mutex::default(), _watching: AbortOnDropHandle::new(watching) })
    }

    /// The worker's identity.
    pub fn worker(&self) -> &W {
        &self.worker
    }

    /// Sends a request to the worker. `credentials` are those for the source of a load; when they cannot be read, the load
    /// fails. Each request ends within [`LOAD_MAX`] or [`UNLOAD_MAX`], and its end is sent as an event, unless another request
    /// cancelled it.
    pub fn ask(
        &self,
        action: AdapterAction,
        credentials: impl Future<Output = Result<String, String>> + Send + 'static,
    ) {
        let mut client = self.client.clone();
        match action {
            AdapterAction::Load { name, version } => {
                self.cancel(&name);
                let requested = version.clone();
                let adapter = name.clone();
                let load = async move {
                    let credentials = credentials.await.map_err(Status::unavailable)?;
                    let mut request = Request::new(request(&adapter, &requested, credentials));
                    request.set_timeout(LOAD_MAX);
                    client.load_adapter(request).await.map(|_| ())
                };
                let event = |(name, version), outcome| Event::Loaded { name, version, outcome };
                let running = self.answer((name.clone(), version), load, LOAD_MAX, event);
                let mut loads = self.loads();
                loads.retain(|_, load| !load.is_finished());
                loads.insert(name, running);
            }
            AdapterAction::Cancel { name } => self.cancel(&name),
            AdapterAction::Unload { name, digest } => {
                let request = UnloadAdapterRequest { name: name.clone(), digest: digest.clone() };
                let unload = async move { client.unload_adapter(request).await.map(|_| ()) };
                let event = |(name, digest), outcome| Event::Unloaded { name, digest, outcome };
                self.answer((name, digest), unload, UNLOAD_MAX, event);
            }
        }
    }

    fn cancel(&self, name: &str) {
        if let Some(running) = self.loads().remove(name) {
            running.abort();
        }
    }

    fn loads(&self) -> std::sync::MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of a request in a task, and sends it as an event. A panic is an end, too.
    fn answer<T: Send + 'static>(
        &self,
        about: T,
        request: impl Future<Output = Result<(), Status>> + Send + 'static,
        time_max: Duration,
        event: impl FnOnce(T, Result<(), Status>) -> Event + Send + 'static,
    ) -> AbortHandle {
        let (worker, events) = (self.worker.clone(), self.events.clone());
        let told = tokio::spawn(async move {
            let ended = timeout(time_max, AssertUnwindSafe(request).catch_unwind()).await;
            let outcome = match ended {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(Status::aborted("the request to the worker panicked; the log says where")),
                Err(_) => {
                    let seconds = time_max.as_secs();
                    Err(Status::deadline_exceeded(format!(
                        "the request took longer than {seconds} s and was cancelled"
                    )))
                }
            };
            // Nobody listens any more only when the keeper ends.
            let _ = events.send((worker, event(about, outcome))).await;
        });
        told.abort_handle()
    }
}

/// Credentials for a public source: none.
///
/// # Errors
/// None.
pub async fn no_credentials() -> Result<String, String> {
    Ok(String::new())
}

fn request(name: &str, version: &Version, credentials: String) -> LoadAdapterRequest {
    LoadAdapterRequest {
        name: name.to_owned(),
        source: version.source.clone(),
        digest: version.digest.clone().unwrap_or_default(),
        scale: Some(version.scale),
        credentials,
        pinned: version.pinned,
    }
}

/// Sends the states of the worker until the receiver is gone.
async fn watch<W: Clone + Send>(worker: W, channel: Channel, events: mpsc::Sender<(W, Event)>) {
    let mut states = StateStream::new(channel, (FIRST_PAUSE, RECONNECT_MAX));
    let mut down = false;
    loop {
        let state = states.next().await;
        // A break is told once, however long it lasts.
        let known = down && state.is_err();
        down = state.is_err();
        if !known && events.send((worker.clone(), Event::State(state))).await.is_err() {
            return;
        }
    }
}

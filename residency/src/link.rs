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

use crate::{steps::Step, version::Version};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A worker that answers no ping for this long is gone, even if its machine never said so.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts to reach a worker: it has just been started, or has just died.
const RECONNECT: Duration = Duration::from_millis(100);

/// What a link tells.
#[derive(Debug)]
pub enum Event {
    /// What the worker says, or why it says nothing.
    State(Result<WorkerState, String>),
    /// A load ended; what is resident then comes with the state.
    Loaded {
        /// Of this adapter.
        name: String,
        /// In this version.
        version: Version,
        /// How.
        outcome: Result<(), Status>,
    },
    /// A drop ended.
    Unloaded {
        /// Of this adapter.
        name: String,
        /// In this version.
        digest: String,
        /// How.
        outcome: Result<(), Status>,
    },
}

/// Why a worker cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum BadAddress {
    /// Not one.
    #[error(transparent)]
    Malformed(#[from] tonic::transport::Error),
    /// None for who speaks here.
    #[error(transparent)]
    Unfit(#[from] slm_tls::client::AddressError),
}

/// A worker that is spoken to; `W` is its name among those of its keeper. Dropping it ends the stream; requests that
/// were sent run on, and their outcome is still told.
#[derive(Debug)]
pub struct Link<W> {
    worker: W,
    client: WorkerControlClient<Channel>,
    events: mpsc::Sender<(W, Event)>,
    _watching: AbortOnDropHandle<()>,
}

impl<W: Clone + Send + 'static> Link<W> {
    /// To the worker at `address`, `IP:PORT`. Connects when it is first used, and again whenever the connection breaks:
    /// over `tls`, or in plain text without.
    ///
    /// # Errors
    /// When the address is none.
    pub fn open(
        worker: W,
        address: &str,
        tls: Option<&Tls>,
        events: mpsc::Sender<(W, Event)>,
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
        let watching = tokio::spawn(watch(worker.clone(), client.clone(), events.clone()));
        Ok(Self { worker, client, events, _watching: AbortOnDropHandle::new(watching) })
    }

    /// The worker's name.
    pub fn worker(&self) -> &W {
        &self.worker
    }

    /// Asks for `step`. Credentials for the source of a load, where it needs any, may have to be read first; when that
    /// fails, so does the load.
    pub fn ask(&self, step: Step, credentials: impl Future<Output = Result<String, String>> + Send + 'static) {
        let mut client = self.client.clone();
        self.answer(async move {
            match step {
                Step::Load { name, version } => {
                    let outcome = match credentials.await {
                        Err(why) => Err(Status::unavailable(why)),
                        Ok(credentials) => client.load_adapter(request(&name, &version, credentials)).await.map(|_| ()),
                    };
                    Event::Loaded { name, version, outcome }
                }
                Step::Unload { name, digest } => {
                    let request = UnloadAdapterRequest { name: name.clone(), digest: digest.clone() };
                    let outcome = client.unload_adapter(request).await.map(|_| ());
                    Event::Unloaded { name, digest, outcome }
                }
            }
        });
    }

    fn answer(&self, request: impl Future<Output = Event> + Send + 'static) {
        let (worker, events) = (self.worker.clone(), self.events.clone());
        tokio::spawn(async move {
            let event = request.await;
            // Nobody listens any more only when the keeper ends.
            let _ = events.send((worker, event)).await;
        });
    }
}

/// What a source that is open to everybody needs.
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
    }
}

async fn watch<W: Clone>(worker: W, mut client: WorkerControlClient<Channel>, events: mpsc::Sender<(W, Event)>) {
    let mut down = false;
    loop {
        let why = match client.watch_state(WatchStateRequest {}).await {
            Ok(states) => {
                let mut states = states.into_inner();
                loop {
                    match states.message().await {
                        Ok(Some(state)) => {
                            down = false;
                            if events.send((worker.clone(), Event::State(Ok(state)))).await.is_err() {
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
        if !down && events.send((worker.clone(), Event::State(Err(why)))).await.is_err() {
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

//! One model outside: its client, its places, its circuit.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Certificate, Client, Proxy, redirect::Policy};
use slm_crds::{ExternalModelSpec, hosts};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use crate::{circuit::Circuit, credentials::Token};

/// Time for a TCP connection and its TLS handshake.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Requests that wait, for each that is answered.
const WAITING_PER_PLACE: u32 = 4;

/// A model that can be asked.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) spec: ExternalModelSpec,
    pub(crate) token: Option<Token>,
    pub(crate) client: Client,
    places: Semaphore,
    waiting: AtomicU32,
    circuit: Mutex<Circuit>,
}

impl Model {
    /// # Errors
    /// A proxy or a CA bundle that cannot be used.
    pub(crate) fn new(name: &str, spec: &ExternalModelSpec, token: Option<Token>) -> Result<Self, String> {
        Ok(Self {
            name: name.to_owned(),
            client: client(spec)?,
            places: Semaphore::new(spec.concurrency as usize),
            waiting: AtomicU32::new(0),
            circuit: Mutex::default(),
            spec: spec.clone(),
            token,
        })
    }

    /// Whether it is still this model with this token.
    pub(crate) fn is(&self, spec: &ExternalModelSpec, token: Option<&Token>) -> bool {
        self.spec == *spec && self.token.as_ref() == token
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/chat/completions", self.spec.url.trim_end_matches('/'))
    }

    pub(crate) fn host(&self) -> &str {
        hosts::host(&self.spec.url).unwrap_or_default()
    }

    /// The longest silence.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_secs(self.spec.timeout_seconds.into())
    }

    /// A place among those that are answered at once. `waits` is told when there is none yet.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: too many wait.
    pub(crate) async fn place(&self, waits: impl FnOnce()) -> Result<SemaphorePermit<'_>, Status> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let waiting = Waiting::new(&self.waiting);
        let most = self.spec.concurrency * WAITING_PER_PLACE;
        if waiting.count > most {
            let Self { name, spec, .. } = self;
            return Err(Status::resource_exhausted(format!(
                "the ExternalModel `{name}` answers {} requests at once, and {most} wait already; try again later",
                spec.concurrency
            )));
        }
        waits();
        self.places.acquire().await.map_err(|_| Status::unavailable("the egress is shutting down"))
    }

    /// Gives a place back.
    pub(crate) fn leave(&self) {
        self.places.add_permits(1);
    }

    pub(crate) fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn asked(&self) -> bool {
        self.circuit().closed(Instant::now())
    }

    /// Requests that are answered, and that wait.
    pub(crate) fn load(&self) -> (u32, u32) {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        (self.spec.concurrency.saturating_sub(free), self.waiting.load(Ordering::Relaxed))
    }
}

/// A request that waits for its place.
struct Waiting<'m> {
    of: &'m AtomicU32,
    count: u32,
}

impl<'m> Waiting<'m> {
    fn new(of: &'m AtomicU32) -> Self {
        Self { of, count: of.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(1, Ordering::Relaxed);
    }
}

fn client(spec: &ExternalModelSpec) -> Result<Client, String> {
    // A redirect could lead a token, or a text, to another host.
    let mut client = Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_MAX)
        .user_agent(concat!("slm-swarm/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = &spec.proxy {
        client = client.proxy(Proxy::all(proxy).map_err(|error| format!("spec.proxy: {error}"))?);
    }
    if let Some(bundle) = &spec.ca_bundle {
        let certificates = Certificate::from_pem_bundle(bundle.as_bytes());
        let certificates = certificates.map_err(|error| format!("spec.caBundle: {error}"))?;
        if certificates.is_empty() {
            return Err("spec.caBundle has no certificate; it needs PEM blocks".to_owned());
        }
        client = certificates.into_iter().fold(client, reqwest::ClientBuilder::add_root_certificate);
    }
    client.build().map_err(|error| error.to_string())
}

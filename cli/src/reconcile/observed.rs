//! What is: workers as their own state streams tell, and what the router was given.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use slm_router::Swarm;

use super::desired::{Launch, Version};

/// Everything that is known of what runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Every worker that was started and has not gone.
    pub workers: Vec<Worker>,
    /// The snapshot that the router was given last.
    pub published: Published,
}

/// A snapshot at the router. Generation 0 is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// What it was given.
    pub swarm: Swarm,
    /// [`Desired::revision`](super::Desired::revision) that it was made for.
    pub revision: u64,
    /// The router says that it uses it.
    pub acknowledged: bool,
    /// The router says that all of it is served.
    pub ready: bool,
}

/// Names a worker; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.0)
    }
}

/// One worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Its name here.
    pub id: WorkerId,
    /// The SlmModel that it serves.
    pub model: String,
    /// How it was started.
    pub launch: Launch,
    /// How far it is.
    pub phase: Phase,
    /// Adapters that new requests on it may name: what it said last.
    pub resident: BTreeMap<String, Version>,
    /// Loads that it was asked for and that its state does not show yet.
    pub loading: BTreeMap<String, Version>,
    /// Versions that it refused.
    pub refused: BTreeMap<String, Refused>,
    /// Adapters that it was asked to drop and that its state still shows.
    pub unloading: BTreeSet<String>,
}

/// A version that cannot be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Which.
    pub version: Version,
    /// The worker's words.
    pub reason: String,
}

/// The life of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It converts and loads its model.
    Starting,
    /// It takes requests at this address, and has told its state.
    Serving(String),
    /// It died, and will be started again when some time has passed.
    Resting(String),
    /// It finishes what runs.
    Stopping,
}

impl Worker {
    /// One that has just been started.
    pub fn new(id: WorkerId, model: &str, launch: &Launch) -> Self {
        Self {
            id,
            model: model.to_owned(),
            launch: launch.clone(),
            phase: Phase::Starting,
            resident: BTreeMap::new(),
            loading: BTreeMap::new(),
            refused: BTreeMap::new(),
            unloading: BTreeSet::new(),
        }
    }

    /// Its address, while it takes requests.
    pub fn address(&self) -> Option<&str> {
        match &self.phase {
            Phase::Serving(address) => Some(address),
            _ => None,
        }
    }

    /// Whether it refused exactly this version.
    pub fn refuses(&self, name: &str, version: &Version) -> bool {
        self.refused.get(name).is_some_and(|refused| refused.version == *version)
    }

    /// Takes in what the worker says: its adapters, and with them what has become of loads and unloads.
    pub fn tell(&mut self, resident: BTreeMap<String, Version>) {
        self.loading.retain(|name, version| resident.get(name) != Some(version));
        self.unloading.retain(|name| resident.contains_key(name));
        self.resident = resident;
    }
}

impl Observed {
    /// The worker of that id.
    pub fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.id == id)
    }

    /// The worker of that id.
    pub fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.id == id)
    }

    /// The worker at that address, while it serves.
    pub fn at(&self, address: &str) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.address() == Some(address))
    }
}

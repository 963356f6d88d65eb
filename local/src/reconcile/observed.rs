//! Observed state: workers as their state streams report them, and the snapshot that the router was given.

use std::{fmt, time::Instant};

use slm_residency::Holdings;
use slm_router::Swarm;

use super::desired::Launch;

/// Observed state of a swarm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Every worker that was started and has not gone.
    pub workers: Vec<Worker>,
    /// Address of the egress, while it runs.
    pub egress: Option<String>,
    /// The snapshot that the router was given last.
    pub published: Published,
}

/// A snapshot at the router. Generation 0 is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// The snapshot itself.
    pub swarm: Swarm,
    /// [`Desired::revision`](super::Desired::revision) that it was made for.
    pub revision: u64,
    /// True when the router has acknowledged its generation.
    pub acknowledged: bool,
    /// True when the router reports all of it ready, but for models and adapters of which `swarm` says that they are
    /// refused.
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
    /// Its id.
    pub id: WorkerId,
    /// The SlmModel that it serves.
    pub model: String,
    /// Its launch options.
    pub launch: Launch,
    /// Its phase.
    pub phase: Phase,
    /// The adapters that it holds and was asked for.
    pub holdings: Holdings,
}

/// The life of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It converts and loads its model.
    Starting,
    /// It takes requests at this address, and has reported its state.
    Serving(String),
    /// It died; it is started again after a pause.
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
            holdings: Holdings::default(),
        }
    }

    /// Its address, while it takes requests.
    pub fn address(&self) -> Option<&str> {
        match &self.phase {
            Phase::Serving(address) => Some(address),
            _ => None,
        }
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

    /// Time at which [`plan`](super::plan::plan) may have a new action without an event, after a call at `last`.
    pub fn next_attempt(&self, last: Instant) -> Option<Instant> {
        let serving = self.workers.iter().filter(|worker| worker.address().is_some());
        serving.filter_map(|worker| worker.holdings.next_attempt(last)).min()
    }

    /// The worker at that address, while it serves.
    pub fn at(&self, address: &str) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.address() == Some(address))
    }
}

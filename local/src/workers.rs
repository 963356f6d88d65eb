//! The worker processes: start, stop, restart with backoff.

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use slm_launch::{CacheArgs, StoreArgs, WorkerLaunch};
use slm_residency::{
    WorkerClient,
    pause::backoff,
    worker_client::{self, BadAddress},
};
use tokio::sync::mpsc;

use crate::reconcile::{Launch, WorkerId};
use crate::{
    child::Child,
    event::{ChildId, Event, FINE, RESTART_PAUSE_MAX},
};

/// Launch options of all workers.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Folder of converted models and downloads.
    pub cache: std::path::PathBuf,
    /// Time for running answers to finish after a shutdown was requested.
    pub drain: Duration,
}

/// Every worker process there is.
#[derive(Debug)]
pub(crate) struct Workers {
    settings: WorkerSettings,
    events: mpsc::Sender<Event>,
    worker_events: mpsc::Sender<(WorkerId, worker_client::Event)>,
    running: HashMap<WorkerId, Process>,
    started: u64,
    /// Starts in a row that did not last, by model.
    attempts: HashMap<String, u32>,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its SlmModel.
    pub model: String,
    /// Reason for its exit, as it printed it.
    pub failed: Option<String>,
    child: Option<Child>,
    killer: tokio_util::sync::CancellationToken,
    client: Option<WorkerClient<WorkerId>>,
    address: Option<String>,
    serving_since: Option<Instant>,
}

impl Workers {
    /// No worker yet. Output of the processes goes to `events`, reports over gRPC to `worker_events`.
    pub(crate) fn new(
        settings: WorkerSettings,
        events: mpsc::Sender<Event>,
        worker_events: mpsc::Sender<(WorkerId, worker_client::Event)>,
    ) -> Self {
        Self { settings, events, worker_events, running: HashMap::new(), started: 0, attempts: HashMap::new() }
    }

    /// Starts one.
    ///
    /// # Errors
    /// The system does not start the process.
    pub(crate) fn start(&mut self, model: &str, launch: &Launch) -> io::Result<WorkerId> {
        let id = WorkerId(self.started + 1);
        let child = Child::start(ChildId::Worker(id), arguments(model, launch, &self.settings), self.events.clone())?;
        self.started = id.0;
        let process = Process {
            model: model.to_owned(),
            failed: None,
            killer: child.killer(),
            child: Some(child),
            client: None,
            address: None,
            serving_since: None,
        };
        self.running.insert(id, process);
        Ok(id)
    }

    /// The worker with this id.
    pub(crate) fn get(&self, id: WorkerId) -> Option<&Process> {
        self.running.get(&id)
    }

    /// The worker with this id.
    pub(crate) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Process> {
        self.running.get_mut(&id)
    }

    /// Connects to a worker that said its address.
    ///
    /// # Errors
    /// The address is malformed.
    pub(crate) fn connect(&mut self, id: WorkerId, address: SocketAddr) -> Result<(), BadAddress> {
        let Some(process) = self.running.get_mut(&id) else { return Ok(()) };
        process.client = Some(WorkerClient::open(id, &address.to_string(), None, self.worker_events.clone())?);
        process.address = Some(format!("http://{address}"));
        process.serving_since = Some(Instant::now());
        Ok(())
    }

    /// Lets it finish what runs, and end.
    pub(crate) fn stop(&mut self, id: WorkerId) {
        let Some(process) = self.running.get_mut(&id) else { return };
        process.child = None;
        let killer = process.killer.clone();
        // Its own limit is the drain; after that, and some time to end, it is stuck.
        let limit = self.settings.drain + Duration::from_secs(5);
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            killer.cancel();
        });
    }

    /// Ends it at once.
    pub(crate) fn kill(&self, id: WorkerId) {
        if let Some(process) = self.running.get(&id) {
            process.killer.cancel();
        }
    }

    /// Forgets one that ended; gives it, and how long to wait before its next start.
    pub(crate) fn ended(&mut self, id: WorkerId) -> Option<(Process, Duration)> {
        let process = self.running.remove(&id)?;
        let attempts = self.attempts.entry(process.model.clone()).or_default();
        if process.serving_since.is_some_and(|since| since.elapsed() >= FINE) {
            *attempts = 0;
        }
        let delay = backoff(*attempts, RESTART_PAUSE_MAX);
        *attempts += 1;
        Some((process, delay))
    }

    /// Ids of the workers that run.
    pub(crate) fn ids(&self) -> Vec<WorkerId> {
        self.running.keys().copied().collect()
    }
}

impl Process {
    /// Its client, once it is connected.
    pub(crate) fn client(&self) -> Option<&WorkerClient<WorkerId>> {
        self.client.as_ref()
    }

    /// Its URL, once it said its address.
    pub(crate) fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}

fn arguments(model: &str, launch: &Launch, settings: &WorkerSettings) -> Vec<OsString> {
    let store = StoreArgs { cache: CacheArgs { cache: Some(settings.cache.clone()) }, ..StoreArgs::default() };
    let launch = WorkerLaunch {
        digest: Some(launch.digest.clone()),
        execution_provider: launch.execution_provider,
        task: launch.task.into(),
        precision: launch.precision.into(),
        context_length: launch.context_length,
        max_sequences: launch.sequences_max,
        kv_cache_bytes: launch.kv_cache_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        prefix_cache: launch.prefix_cache,
        speculative: launch.speculative.into(),
        threads: launch.threads,
        adapter_slots: launch.adapter_slots,
        // The schema's lower bound is zero.
        adapter_host_cache_bytes: u64::try_from(launch.adapter_host_bytes).unwrap_or_default(),
        adapter_max_rank: launch.adapter_rank_max,
        store,
        drain: settings.drain,
        follow_stdin: true,
        ..WorkerLaunch::new(model, launch.path.to_string_lossy())
    };
    launch.to_args()
}

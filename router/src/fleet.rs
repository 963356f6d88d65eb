//! The fleet of workers, by their state streams: one to each, opened again whenever it breaks.
//!
//! A worker whose stream is down is not eligible, whatever it said before; after a restart it has to report its adapters anew.
//! One task owns all of this and publishes a [`View`] after every change, so that a request always decides over one consistent
//! picture.

mod connection;

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, atomic::AtomicU32},
};

use arc_swap::ArcSwap;
use slm_probes::faults::panic_when_asked;
use slm_proto::v1::WorkerState;
use slm_tls::Tls;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Status, transport::Channel};

use crate::{
    RunError,
    config::Limits,
    metrics::Metrics,
    swarm::Swarm,
    view::{Index, View, Worker},
};

/// Updates that may wait for the task; beyond that the state streams wait.
const UPDATES_MAX: usize = 64;

/// One HTTP/2 connection to each worker for all requests, by address. Its state stream has a connection of its own: what
/// callers leave unread never holds it up.
pub(crate) type Channels = Arc<ArcSwap<HashMap<Arc<str>, Channel>>>;

/// The connection to a worker.
///
/// # Errors
/// UNAVAILABLE: it has none any more.
pub(crate) fn channel(channels: &Channels, worker: &Worker) -> Result<Channel, Status> {
    let channel = channels.load().get(&worker.url).cloned();
    channel.ok_or_else(|| Status::unavailable("the worker has just left the swarm; try again"))
}

/// What a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Worker,
    Egress,
}

/// The running task.
pub(crate) struct Fleet {
    view: watch::Receiver<Arc<View>>,
    channels: Channels,
    egress_channels: Channels,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Fleet {
    /// Cancels `shutdown` when the sender of `swarm` is gone.
    pub(crate) fn start(
        swarm: watch::Receiver<Arc<Swarm>>,
        limits: &Limits,
        tls: Option<Tls>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Self {
        let (view_sender, view) = watch::channel(Arc::default());
        let (updates_sender, updates) = mpsc::channel(UPDATES_MAX);
        let (channels, egress_channels) = (Channels::default(), Channels::default());
        let stop = CancellationToken::new();
        let fleet = FleetTask {
            index: Arc::default(),
            connections: HashMap::new(),
            order: Vec::new(),
            next_id: 0,
            view: view_sender,
            channels: Arc::clone(&channels),
            egress_channels: Arc::clone(&egress_channels),
            updates: updates_sender,
            reconnect: limits.reconnect,
            tls,
            metrics,
        };
        let task = tokio::spawn(fleet.run(swarm, updates, stop.clone(), shutdown));
        Self { view, channels, egress_channels, stop, task }
    }

    pub(crate) fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    pub(crate) fn channels(&self) -> Channels {
        Arc::clone(&self.channels)
    }

    /// Those to the egress, by address: apart from the workers', so that no request to a worker can take one.
    pub(crate) fn egress_channels(&self) -> Channels {
        Arc::clone(&self.egress_channels)
    }

    /// Ends when the task does, which it never does by itself.
    pub(crate) async fn ended(&mut self) -> Result<(), RunError> {
        let reason = match (&mut self.task).await {
            Ok(()) => "nothing was to end it".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(RunError::Task { task: "fleet", reason })
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // One that has ended already has been reported.
        if !self.task.is_finished()
            && let Err(error) = self.task.await
        {
            tracing::error!(%error, "the fleet task failed");
        }
    }
}

/// A state of a worker, or the reason why there is none.
struct Update {
    url: Arc<str>,
    /// Incarnation of the connection: an update of an earlier one is ignored.
    connection: u64,
    state: Result<WorkerState, String>,
}

/// The two connections to one worker, or to one egress: one for requests, one for its state stream.
struct WorkerConnection {
    peer: Peer,
    /// Its incarnation: a URL may come back as another worker.
    id: u64,
    worker: Arc<Worker>,
    channel: Option<Channel>,
    /// Ends the stream's task with the connection.
    _task: Option<AbortOnDropHandle<()>>,
}

/// The state of the task.
struct FleetTask {
    index: Arc<Index>,
    connections: HashMap<Arc<str>, WorkerConnection>,
    /// Addresses in the order of the swarm.
    order: Vec<Arc<str>>,
    next_id: u64,
    view: watch::Sender<Arc<View>>,
    channels: Channels,
    egress_channels: Channels,
    updates: mpsc::Sender<Update>,
    reconnect: (std::time::Duration, std::time::Duration),
    tls: Option<Tls>,
    metrics: Arc<Metrics>,
}

impl FleetTask {
    async fn run(
        mut self,
        mut swarm: watch::Receiver<Arc<Swarm>>,
        mut updates: mpsc::Receiver<Update>,
        stop: CancellationToken,
        shutdown: CancellationToken,
    ) {
        let first = Arc::clone(&swarm.borrow_and_update());
        self.adopt(first);
        let mut parent_is_gone = false;
        let mut panic_when_asked = pin!(panic_when_asked("router-fleet"));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut panic_when_asked => {}
                changed = swarm.changed(), if !parent_is_gone => match changed {
                    Ok(()) => {
                        let next = Arc::clone(&swarm.borrow_and_update());
                        self.adopt(next);
                    }
                    Err(_) => {
                        tracing::info!("the source of swarm snapshots is gone: draining");
                        parent_is_gone = true;
                        shutdown.cancel();
                    }
                },
                Some(update) = updates.recv() => {
                    self.apply(update);
                    // What else has come is part of the same picture.
                    while let Ok(update) = updates.try_recv() {
                        self.apply(update);
                    }
                    self.publish();
                }
            }
        }
    }

    fn adopt(&mut self, swarm: Arc<Swarm>) {
        let mut connections = HashMap::new();
        let mut order = Vec::new();
        let of_models =
            swarm.models.iter().flat_map(|model| model.workers.iter().map(|url| (Peer::Worker, url, &*model.name)));
        // The models outside have no workers: the egress is listed under no model.
        let of_egress = swarm.egress.iter().map(|url| (Peer::Egress, url, ""));
        for (peer, url, model) in of_models.chain(of_egress) {
            let same = |connection: &WorkerConnection| connection.peer == peer && connection.worker.model == model;
            let kept = self.connections.remove(url.as_str()).filter(same);
            let connection = kept.unwrap_or_else(|| self.connect(peer, url, model));
            let url = Arc::clone(&connection.worker.url);
            if connections.insert(Arc::clone(&url), connection).is_none() {
                order.push(url);
            }
        }
        // Connections that nothing names any more end here; streams that run over their channels end by themselves.
        self.connections = connections;
        self.order = order;
        for (peer, channels) in [(Peer::Worker, &self.channels), (Peer::Egress, &self.egress_channels)] {
            let of_peer = self.connections.values().filter(|connection| connection.peer == peer);
            let open = of_peer
                .filter_map(|connection| Some((Arc::clone(&connection.worker.url), connection.channel.clone()?)));
            channels.store(Arc::new(open.collect()));
        }
        self.index = Arc::new(Index::new(swarm, &self.index));
        for (route, rule, why) in &self.index.broken_rules {
            tracing::warn!(route, rule, why, "a rule does not compile");
        }
        self.publish();
    }

    fn connect(&mut self, peer: Peer, url: &str, model: &str) -> WorkerConnection {
        let id = self.next_id;
        self.next_id += 1;
        let url: Arc<str> = url.into();
        let channel = || connection::channel(peer, &url, self.tls.as_ref());
        let channels = || Ok((channel()?, channel()?));
        let (channel, task, why) = match channels() {
            Ok((channel, of_state)) => {
                let states = connection::states(peer, of_state, self.reconnect);
                let task = connection::watch(Arc::clone(&url), id, states, self.updates.clone());
                (Some(channel), Some(AbortOnDropHandle::new(tokio::spawn(task))), "connecting".to_owned())
            }
            Err(why) => (None, None, why),
        };
        let worker =
            Worker { url, model: model.to_owned(), state: Err(why.into()), seen: 0, open: Arc::new(AtomicU32::new(0)) };
        WorkerConnection { peer, id, worker: Arc::new(worker), channel, _task: task }
    }

    fn apply(&mut self, update: Update) {
        let Some(connection) =
            self.connections.get_mut(&update.url).filter(|connection| connection.id == update.connection)
        else {
            return;
        };
        let before = &connection.worker;
        match (&before.state, &update.state) {
            (Ok(_), Err(why)) => tracing::warn!(worker = %update.url, why, "state stream broke"),
            (Err(_), Ok(state)) => tracing::info!(worker = %update.url, model = state.model, "state stream open"),
            _ => {}
        }
        connection.worker = Arc::new(Worker {
            url: Arc::clone(&before.url),
            model: before.model.clone(),
            state: update.state.map(Arc::new).map_err(Into::into),
            seen: before.seen + 1,
            open: Arc::clone(&before.open),
        });
    }

    fn publish(&self) {
        let of = |peer: Peer| -> Vec<Arc<Worker>> {
            let connections = self.order.iter().filter_map(|url| self.connections.get(url));
            connections
                .filter(|connection| connection.peer == peer)
                .map(|connection| Arc::clone(&connection.worker))
                .collect()
        };
        let (workers, egress) = (of(Peer::Worker), of(Peer::Egress));
        let up = workers.iter().filter(|worker| worker.state.is_ok()).count();
        self.metrics.swarm(&self.index.swarm, workers.len(), up);
        self.view.send_replace(Arc::new(View { index: Arc::clone(&self.index), workers, egress }));
    }
}

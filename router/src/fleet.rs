//! The workers, as they say themselves: one state stream to each, opened again whenever it breaks.
//!
//! A worker whose stream is down is not eligible, whatever it said before; what it holds after a restart it has to say
//! anew. One task owns all of it and publishes a [`View`] after every change, so that a request always decides over one
//! consistent picture.

mod link;

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
use tonic::transport::Channel;

use crate::{
    RunError,
    config::Limits,
    metrics::Metrics,
    swarm::Swarm,
    view::{Index, View, Worker},
};

/// Updates that may wait for the task; links wait beyond that.
const UPDATES_MAX: usize = 64;

/// One HTTP/2 connection to each worker for all requests, by address. Its state stream has a connection of its own: what
/// callers leave unread never holds it up.
pub(crate) type Channels = Arc<ArcSwap<HashMap<Arc<str>, Channel>>>;

/// The running task.
pub(crate) struct Fleet {
    view: watch::Receiver<Arc<View>>,
    channels: Channels,
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
        let channels = Channels::default();
        let stop = CancellationToken::new();
        let keeper = Keeper {
            index: Arc::default(),
            links: HashMap::new(),
            order: Vec::new(),
            next_id: 0,
            view: view_sender,
            channels: Arc::clone(&channels),
            updates: updates_sender,
            reconnect: limits.reconnect,
            tls,
            metrics,
        };
        let task = tokio::spawn(keeper.run(swarm, updates, stop.clone(), shutdown));
        Self { view, channels, stop, task }
    }

    pub(crate) fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    pub(crate) fn channels(&self) -> Channels {
        Arc::clone(&self.channels)
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

/// What a link tells: a state, or why there is none.
struct Update {
    url: Arc<str>,
    link: u64,
    state: Result<WorkerState, String>,
}

struct Link {
    id: u64,
    worker: Arc<Worker>,
    channel: Option<Channel>,
    /// Ends the stream's task with the link.
    _task: Option<AbortOnDropHandle<()>>,
}

struct Keeper {
    index: Arc<Index>,
    links: HashMap<Arc<str>, Link>,
    /// Addresses in the order of the swarm.
    order: Vec<Arc<str>>,
    next_id: u64,
    view: watch::Sender<Arc<View>>,
    channels: Channels,
    updates: mpsc::Sender<Update>,
    reconnect: (std::time::Duration, std::time::Duration),
    tls: Option<Tls>,
    metrics: Arc<Metrics>,
}

impl Keeper {
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
        let mut links = HashMap::new();
        let mut order = Vec::new();
        for model in &swarm.models {
            for url in &model.workers {
                let kept = self.links.remove(url.as_str()).filter(|link| link.worker.model == model.name);
                let link = kept.unwrap_or_else(|| self.link(url, &model.name));
                let url = Arc::clone(&link.worker.url);
                if links.insert(Arc::clone(&url), link).is_none() {
                    order.push(url);
                }
            }
        }
        // Links that nothing names any more end here; streams that run over their channels end by themselves.
        self.links = links;
        self.order = order;
        let channels =
            self.links.values().filter_map(|link| Some((Arc::clone(&link.worker.url), link.channel.clone()?)));
        self.channels.store(Arc::new(channels.collect()));
        self.index = Arc::new(Index::new(swarm, &self.index));
        for (route, rule, why) in &self.index.broken_rules {
            tracing::warn!(route, rule, why, "a rule does not compile");
        }
        self.publish();
    }

    fn link(&mut self, url: &str, model: &str) -> Link {
        let id = self.next_id;
        self.next_id += 1;
        let url: Arc<str> = url.into();
        let channels = || Ok((link::channel(&url, self.tls.as_ref())?, link::channel(&url, self.tls.as_ref())?));
        let (channel, task, why) = match channels() {
            Ok((channel, of_state)) => {
                let task = link::watch(Arc::clone(&url), id, of_state, self.updates.clone(), self.reconnect);
                (Some(channel), Some(AbortOnDropHandle::new(tokio::spawn(task))), "connecting".to_owned())
            }
            Err(why) => (None, None, why),
        };
        let worker =
            Worker { url, model: model.to_owned(), state: Err(why.into()), seen: 0, open: Arc::new(AtomicU32::new(0)) };
        Link { id, worker: Arc::new(worker), channel, _task: task }
    }

    fn apply(&mut self, update: Update) {
        let Some(link) = self.links.get_mut(&update.url).filter(|link| link.id == update.link) else { return };
        let before = &link.worker;
        match (&before.state, &update.state) {
            (Ok(_), Err(why)) => tracing::warn!(worker = %update.url, why, "state stream broke"),
            (Err(_), Ok(state)) => tracing::info!(worker = %update.url, model = state.model, "state stream open"),
            _ => {}
        }
        link.worker = Arc::new(Worker {
            url: Arc::clone(&before.url),
            model: before.model.clone(),
            state: update.state.map(Arc::new).map_err(Into::into),
            seen: before.seen + 1,
            open: Arc::clone(&before.open),
        });
    }

    fn publish(&self) {
        let workers: Vec<Arc<Worker>> =
            self.order.iter().filter_map(|url| self.links.get(url)).map(|link| Arc::clone(&link.worker)).collect();
        let up = workers.iter().filter(|worker| worker.state.is_ok()).count();
        self.metrics.swarm(self.index.swarm.generation, workers.len(), up);
        self.view.send_replace(Arc::new(View { index: Arc::clone(&self.index), workers }));
    }
}

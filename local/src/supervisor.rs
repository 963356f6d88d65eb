//! The control loop: take an event, plan, carry out the actions.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use slm_residency::{
    pause::until,
    worker_client::{self, no_credentials},
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::reconcile::{Action, Desired, Observed, Phase, Progress, Worker, WorkerId, plan::plan, progress};
use crate::{
    egress_process::{EgressProcess, EgressSettings},
    event::{Event, later},
    report::Reporter,
    router_process::{RouterProcess, RouterSettings},
    workers::{WorkerSettings, Workers},
};

/// Events that may wait: children are held back when we do not keep up.
const EVENTS_MAX: usize = 1024;
/// Rounds of planning after one event; each only follows from what the one before did.
const ROUNDS_MAX: usize = 8;

/// Settings of a swarm.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Settings of the router.
    pub router: RouterSettings,
    /// Settings of the workers.
    pub workers: WorkerSettings,
    /// Settings of the egress.
    pub egress: EgressSettings,
}

/// Shutdown requests for a swarm.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Drain: running answers are finished first.
    pub drain: CancellationToken,
    /// Kill: at once.
    pub kill: CancellationToken,
}

/// Addresses of a swarm that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The OpenAI-compatible HTTP endpoint.
    pub http: SocketAddr,
    /// The gRPC endpoint.
    pub grpc: SocketAddr,
}

/// The reason why a swarm did not become ready.
#[derive(Debug, Error)]
pub enum UpError {
    /// A process could not be started.
    #[error("starting a process: {0}")]
    Start(#[from] std::io::Error),
    /// The router cannot run, for want of a port for example.
    #[error("router: {0}")]
    Router(String),
    /// The egress cannot run, for want of its Secrets for example.
    #[error("egress: {0}")]
    Egress(String),
    /// Some manifests cannot be Ready.
    #[error("{}", .0.join("\n"))]
    NotReady(Vec<String>),
    /// A snapshot could not be written.
    #[error("writing a snapshot: {0}")]
    Snapshot(#[from] serde_json::Error),
}

/// Runs a swarm until it is asked to end.
pub(crate) struct Supervisor {
    pub(crate) reporter: Arc<dyn Reporter>,
    pub(crate) sender: mpsc::Sender<Event>,
    pub(crate) events: mpsc::Receiver<Event>,
    worker_events: mpsc::Receiver<(WorkerId, worker_client::Event)>,
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    /// Time of the last plan.
    planned: Instant,
    pub(crate) workers: Workers,
    pub(crate) router: RouterProcess,
    pub(crate) egress: EgressProcess,
    pub(crate) bound: Option<Bound>,
    /// State that was served last, without refused adapters; none before the swarm was ready for the first time.
    pub(crate) applied: Option<(Desired, u64)>,
    pub(crate) ready: Option<oneshot::Sender<Bound>>,
    /// Problems that were told already.
    told: BTreeSet<String>,
    /// Everything was told to end at once.
    pub(crate) killed: bool,
}

impl Supervisor {
    /// For a swarm that starts as `desired` says.
    pub(crate) fn new(
        settings: Settings,
        desired: Desired,
        reporter: Arc<dyn Reporter>,
        ready: oneshot::Sender<Bound>,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (worker_events_sender, worker_events) = mpsc::channel(EVENTS_MAX);
        Self {
            reporter,
            workers: Workers::new(settings.workers, sender.clone(), worker_events_sender),
            router: RouterProcess::new(settings.router, sender.clone()),
            egress: EgressProcess::new(settings.egress, sender.clone()),
            sender,
            events,
            worker_events,
            desired,
            observed: Observed::default(),
            planned: Instant::now(),
            bound: None,
            applied: None,
            ready: Some(ready),
            told: BTreeSet::new(),
            killed: false,
        }
    }

    /// Runs it. Before the swarm is ready for the first time, a model that cannot be Ready ends it; after that, and of an
    /// adapter that its worker refuses at any time, it is reported and everything else keeps serving.
    ///
    /// # Errors
    /// Objects that cannot become Ready.
    pub(crate) async fn run(mut self, mut changes: mpsc::Receiver<Desired>, stop: Stop) -> Result<(), UpError> {
        self.router.start().await?;
        let outcome = loop {
            if let Err(error) = self.reconcile().await {
                break Err(error);
            }
            let handled = tokio::select! {
                () = stop.drain.cancelled() => break Ok(()),
                () = stop.kill.cancelled() => break Ok(()),
                Some(desired) = changes.recv() => { self.change(desired); Ok(()) }
                Some(event) = self.events.recv() => self.handle_event(event).await,
                Some((id, event)) = self.worker_events.recv() => { self.handle_worker_event(id, event); Ok(()) }
                () = until(self.observed.next_attempt(self.planned)) => Ok(()),
            };
            if handled.is_err() {
                break handled;
            }
        };
        if outcome.is_err() {
            // Nobody is served yet, or the swarm cannot go on: there is nothing to finish.
            stop.kill.cancel();
        }
        self.shut_down(stop).await;
        outcome
    }

    fn change(&mut self, desired: Desired) {
        // Files were touched: what was refused may be whole now, and is worth another word if it is not.
        for worker in &mut self.observed.workers {
            worker.holdings.refused.clear();
        }
        self.told.clear();
        self.desired = desired;
    }

    async fn reconcile(&mut self) -> Result<(), UpError> {
        self.egress.follow(&self.desired.externals).await?;
        for _ in 0..ROUNDS_MAX {
            self.planned = Instant::now();
            let actions = plan(&self.desired, &self.observed, self.planned);
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.carry_out(action).await?;
            }
        }
        match progress(&self.desired, &self.observed) {
            Progress::Working => Ok(()),
            Progress::Applied => {
                self.tell_applied(None);
                Ok(())
            }
            Progress::Partly(problems) => {
                self.tell_problems(problems.clone());
                self.tell_applied(Some(&problems));
                Ok(())
            }
            Progress::Stuck(problems) if self.applied.is_none() => Err(UpError::NotReady(problems)),
            Progress::Stuck(problems) => {
                self.tell_problems(problems);
                Ok(())
            }
        }
    }

    async fn carry_out(&mut self, action: Action) -> Result<(), UpError> {
        match action {
            Action::StartWorker { model, launch } => {
                let id = self.workers.start(&model, &launch)?;
                self.observed.workers.push(Worker::new(id, &model, &launch));
            }
            Action::Ask { worker, action } => {
                if let Some(observed) = self.observed.worker_mut(worker) {
                    observed.holdings.ask(&action, self.planned);
                }
                if let Some(client) = self.workers.get(worker).and_then(|process| process.client()) {
                    // What needed any is on this machine already.
                    client.ask(action, no_credentials());
                }
            }
            Action::Publish { swarm, revision } => {
                self.router.publish(&swarm).await?;
                self.observed.published =
                    crate::reconcile::Published { swarm, revision, acknowledged: false, ready: false };
            }
            Action::StopWorker(id) => self.stop_worker(id),
        }
        Ok(())
    }

    fn stop_worker(&mut self, id: WorkerId) {
        let Some(worker) = self.observed.worker_mut(id) else { return };
        let phase = std::mem::replace(&mut worker.phase, Phase::Stopping);
        self.reporter.finished(id);
        match phase {
            // There is no process any more.
            Phase::Resting(_) => self.observed.workers.retain(|worker| worker.id != id),
            // It has no request to finish.
            Phase::Starting => self.workers.kill(id),
            Phase::Serving(_) | Phase::Stopping => self.workers.stop(id),
        }
    }

    /// Everything serves that can, for the first time. Gives what was applied before.
    fn tell_ready(&mut self) -> Option<(Desired, u64)> {
        let bound = self.bound?;
        let generation = self.observed.published.swarm.generation;
        let before = self.applied.replace((self.desired.clone(), generation));
        if let Some(ready) = self.ready.take() {
            // A caller that does not care for the addresses may drop its end.
            let _ = ready.send(bound);
        }
        before
    }

    /// `refused`: problems of adapters that their workers refuse, `None` when everything is served.
    fn tell_applied(&mut self, refused: Option<&[String]>) {
        if self.bound.is_none() {
            return;
        }
        let before = self.tell_ready();
        let generation = self.observed.published.swarm.generation;
        if refused.is_none() {
            self.told.clear();
        }
        match before {
            None => {}
            Some((_, told)) if told == generation => {}
            Some((before, _)) => {
                let mut changes = self.desired.changes(&before);
                // The former version of a refused adapter serves on: nothing was applied.
                let is_refused = |change: &String| {
                    let refused = refused.unwrap_or_default().iter();
                    refused.filter_map(|problem| problem.split_once(": ")).any(|(object, _)| change[1..] == *object)
                };
                changes.retain(|change| !is_refused(change));
                if changes.is_empty() && refused.is_some() {
                    return;
                }
                let what = if changes.is_empty() { "everything serves again".to_owned() } else { changes.join(" ") };
                self.reporter.note(&format!("applied generation={generation} {what}"));
            }
        }
    }

    pub(crate) fn tell_problems(&mut self, problems: Vec<String>) {
        for problem in problems {
            if self.told.insert(problem.clone()) {
                self.reporter.problem(&problem);
            }
        }
    }

    /// Tries again after some time.
    pub(crate) fn later(&self, delay: Duration, retry: crate::event::Retry) {
        later(&self.sender, delay, retry);
    }
}

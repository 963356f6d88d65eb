//! Event handling: the change of the observed state by each event.

use std::time::Instant;

use slm_launch::{EgressLine, RouterLine, WorkerLine};
use slm_residency::{refusal::RetryWhen, worker_client};
use slm_router::{Missing, Swarm, SwarmReadiness, swarm::Adapter};

use crate::{
    child::ChildOutput,
    event::{ChildId, Event, Retry},
    reconcile::{Phase, WorkerId, settled},
    supervisor::{Bound, Supervisor, UpError},
};

impl Supervisor {
    /// Takes in one event. Carries nothing out but restarts of the router.
    pub(crate) async fn handle_event(&mut self, event: Event) -> Result<(), UpError> {
        match event {
            Event::Child(ChildId::Worker(id), what) => self.worker_output(id, what),
            Event::Child(ChildId::Router, what) => return self.router_output(what),
            Event::Child(ChildId::Egress, what) => return self.egress_output(what),
            Event::Readiness(readiness) => self.readiness(&readiness),
            Event::Overdue(readiness) => return self.overdue(readiness),
            Event::Again(Retry::Router) => self.router.start().await?,
            Event::Again(Retry::Egress) => self.egress.rested(),
            // The plan starts another one.
            Event::Again(Retry::Worker(id)) => self.observed.workers.retain(|worker| worker.id != id),
        }
        Ok(())
    }

    fn worker_output(&mut self, id: WorkerId, what: ChildOutput) {
        let Some(process) = self.workers.get_mut(id) else { return };
        let model = process.model.clone();
        match what {
            ChildOutput::Log(line) => self.reporter.log(&format!("worker {model}"), &line),
            ChildOutput::Exited(how) => self.worker_ended(id, &how),
            ChildOutput::Line(line) => match serde_json::from_str::<WorkerLine>(&line) {
                Ok(WorkerLine::Failed { message }) => process.failed = Some(message),
                Ok(WorkerLine::Ready { address }) => {
                    if let Err(error) = self.workers.connect(id, address) {
                        self.reporter.problem(&format!("SlmModel {model}: {address}: {error}"));
                    }
                    self.reporter.finished(id);
                }
                Ok(line) => self.reporter.opening(id, &model, &line),
                Err(_) => self.reporter.log(&format!("worker {model}"), &line),
            },
        }
    }

    fn worker_ended(&mut self, id: WorkerId, how: &str) {
        self.reporter.finished(id);
        let Some((process, delay)) = self.workers.ended(id) else { return };
        let ends = self.observed.worker(id).is_none_or(|worker| worker.phase == Phase::Stopping);
        if ends {
            self.observed.workers.retain(|worker| worker.id != id);
            return;
        }
        let reason = process.failed.unwrap_or_else(|| format!("its worker {how}"));
        if let Some(worker) = self.observed.worker_mut(id) {
            worker.phase = Phase::Resting(reason);
            worker.holdings.lost();
        }
        // Before the swarm has been ready, what failed once is an answer.
        if self.applied.is_some() {
            self.later(delay, Retry::Worker(id));
        }
    }

    fn router_output(&mut self, what: ChildOutput) -> Result<(), UpError> {
        match what {
            ChildOutput::Log(line) => self.reporter.log("router", &line),
            ChildOutput::Line(line) => match serde_json::from_str::<RouterLine>(&line) {
                Ok(RouterLine::Ready { http, grpc, probes }) => {
                    self.bound = Some(Bound { http, grpc });
                    self.router.bound(http, grpc, probes);
                }
                Ok(RouterLine::Failed { message }) => self.router.process.failed = Some(message),
                Err(_) => self.reporter.log("router", &line),
            },
            ChildOutput::Exited(how) => {
                let reason = self.router.process.failed.clone().unwrap_or(how);
                let delay = self.router.ended();
                if self.applied.is_none() {
                    return Err(UpError::Router(reason));
                }
                self.reporter.problem(&format!("router: {reason}; starting it again"));
                self.observed.published.acknowledged = false;
                self.observed.published.ready = false;
                self.later(delay, Retry::Router);
            }
        }
        Ok(())
    }

    fn egress_output(&mut self, what: ChildOutput) -> Result<(), UpError> {
        match what {
            ChildOutput::Log(line) => self.reporter.log("egress", &line),
            ChildOutput::Line(line) => match serde_json::from_str::<EgressLine>(&line) {
                Ok(EgressLine::Ready { grpc, .. }) => self.observed.egress = Some(format!("http://{grpc}")),
                Ok(EgressLine::Failed { message }) => self.egress.process.failed = Some(message),
                Err(_) => self.reporter.log("egress", &line),
            },
            ChildOutput::Exited(how) => {
                self.observed.egress = None;
                let reason = self.egress.process.failed.clone().unwrap_or(how);
                let Some(delay) = self.egress.ended() else { return Ok(()) };
                if self.applied.is_none() {
                    return Err(UpError::Egress(reason));
                }
                self.reporter.problem(&format!("egress: {reason}; starting it again"));
                self.later(delay, Retry::Egress);
            }
        }
        Ok(())
    }

    /// Takes in an event of a worker's own client: its state, or the end of a load or unload.
    pub(crate) fn handle_worker_event(&mut self, id: WorkerId, event: worker_client::Event) {
        // One that ended has no say.
        let Some(address) = self.workers.get(id).and_then(|process| process.address()).map(str::to_owned) else {
            return;
        };
        let Some(worker) = self.observed.worker_mut(id) else { return };
        let now = Instant::now();
        match event {
            worker_client::Event::State(Ok(state)) => {
                if worker.phase == Phase::Starting {
                    worker.phase = Phase::Serving(address);
                }
                worker.holdings.tell(&state, now);
            }
            // It holds what it holds for as long as its process runs.
            worker_client::Event::State(Err(_)) => {}
            worker_client::Event::Loaded { name, version, outcome } => {
                let refused = worker.holdings.loaded(&name, &version, outcome, now);
                // What only a change helps is told when nothing else is under way.
                let passing = refused.filter(|refused| refused.retry_when != RetryWhen::Changed);
                let words = passing.map(|refused| format!("LoraAdapter {name}: {}; trying again", refused.message));
                self.tell_problems(words.into_iter().collect());
            }
            worker_client::Event::Unloaded { name, digest, outcome } => {
                worker.holdings.unloaded(&name, &digest, outcome, now)
            }
        }
    }

    fn readiness(&mut self, readiness: &SwarmReadiness) {
        let published = &mut self.observed.published;
        let current = readiness.generation == published.swarm.generation;
        published.acknowledged = current;
        published.ready = current && unexpected(readiness, &published.swarm).next().is_none();
    }

    /// All workers have their adapters, and the router is still not ready.
    fn overdue(&mut self, readiness: SwarmReadiness) -> Result<(), UpError> {
        let settled = settled(&self.desired, &self.observed);
        if !settled || readiness.generation != self.observed.published.swarm.generation {
            return Ok(());
        }
        let problems = unexpected(&readiness, &self.observed.published.swarm);
        let problems: Vec<String> = problems.map(|m| format!("{} {}: {}", m.kind, m.name, m.why)).collect();
        if problems.is_empty() {
            return Ok(());
        }
        if self.applied.is_none() {
            return Err(UpError::NotReady(problems));
        }
        self.tell_problems(problems);
        Ok(())
    }
}

/// Whether `swarm` says that the adapter, or its base, is refused.
fn is_refused(adapter: &Adapter, swarm: &Swarm) -> bool {
    let base = swarm.models.iter().find(|model| model.name == adapter.model);
    !adapter.refused.is_empty() || base.is_some_and(|base| !base.refused.is_empty())
}

/// What is missing although `swarm` does not say that it is refused.
fn unexpected<'r>(readiness: &'r SwarmReadiness, swarm: &'r Swarm) -> impl Iterator<Item = &'r Missing> {
    let refused = |missing: &Missing| match missing.kind.as_ref() {
        "SlmModel" => swarm.models.iter().any(|model| model.name == missing.name && !model.refused.is_empty()),
        "LoraAdapter" => {
            swarm.adapters.iter().any(|adapter| adapter.name == missing.name && is_refused(adapter, swarm))
        }
        _ => false,
    };
    readiness.missing.iter().filter(move |missing| !refused(missing))
}

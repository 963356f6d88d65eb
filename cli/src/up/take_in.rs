//! What each event changes in what is known.

use std::time::Duration;

use slm_proto::v1::WorkerState;
use tonic::{Code, Status};

use super::{
    child::FromChild,
    event::{Event, Readiness, Retry, Who},
    supervisor::{Bound, Supervisor, UpError},
    worker_link::{passes, resident},
};
use crate::{
    child_line::{RouterLine, WorkerLine},
    reconcile::{Phase, Refused, Version, WorkerId},
};

/// Between attempts to load where there was no room, or to unload.
const AGAIN: Duration = Duration::from_millis(200);

impl Supervisor {
    /// Takes in one event. Carries nothing out but restarts of the router.
    pub(super) async fn take_in(&mut self, event: Event) -> Result<(), UpError> {
        match event {
            Event::Child(Who::Worker(id), what) => self.worker_said(id, what),
            Event::Child(Who::Router, what) => return self.router_said(what),
            Event::State(id, state) => self.state(id, &state),
            Event::Loaded(id, name, version, outcome) => self.loaded(id, name, version, outcome),
            Event::Unloaded(id, name, outcome) => {
                // Gone already is as good. The state shows it.
                if outcome.is_err_and(|status| status.code() != Code::NotFound) {
                    self.later(AGAIN, Retry::Unload(id, name));
                }
            }
            Event::Readiness(readiness) => self.readiness(&readiness),
            Event::Overdue(readiness) => return self.overdue(readiness),
            Event::Again(Retry::Router) => self.router.start().await?,
            Event::Again(retry) => self.again(&retry),
        }
        Ok(())
    }

    fn worker_said(&mut self, id: WorkerId, what: FromChild) {
        let Some(process) = self.workers.get_mut(id) else { return };
        let model = process.model.clone();
        match what {
            FromChild::Log(line) => self.reporter.log(&format!("worker {model}"), &line),
            FromChild::Exited(how) => self.worker_ended(id, &how),
            FromChild::Line(line) => match serde_json::from_str::<WorkerLine>(&line) {
                Ok(WorkerLine::Failed { message }) => process.failed = Some(message),
                Ok(WorkerLine::Ready { address }) => {
                    if let Err(error) = self.workers.connect(id, format!("http://{address}")) {
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
            worker.resident.clear();
            worker.loading.clear();
            worker.unloading.clear();
        }
        // Before the swarm has been ready, what failed once is an answer.
        if self.applied.is_some() {
            self.later(delay, Retry::Worker(id));
        }
    }

    fn router_said(&mut self, what: FromChild) -> Result<(), UpError> {
        match what {
            FromChild::Log(line) => self.reporter.log("router", &line),
            FromChild::Line(line) => match serde_json::from_str::<RouterLine>(&line) {
                Ok(RouterLine::Ready { http, grpc }) => {
                    self.bound = Some(Bound { http, grpc });
                    self.router.bound(http, grpc);
                }
                Ok(RouterLine::Failed { message }) => self.router.failed = Some(message),
                Err(_) => self.reporter.log("router", &line),
            },
            FromChild::Exited(how) => {
                let reason = self.router.failed.clone().unwrap_or(how);
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

    fn state(&mut self, id: WorkerId, state: &WorkerState) {
        let address = self.workers.get(id).and_then(|process| process.address()).map(str::to_owned);
        let Some((worker, address)) = self.observed.worker_mut(id).zip(address) else { return };
        if worker.phase == Phase::Starting {
            worker.phase = Phase::Serving(address);
        }
        worker.tell(resident(state));
    }

    fn loaded(&mut self, id: WorkerId, name: String, version: Version, outcome: Result<(), Status>) {
        // A load that went well shows in the state, which is what counts.
        let Err(status) = outcome else { return };
        if passes(&status) {
            self.tell_problems(vec![format!("LoraAdapter {name}: {}; trying again", status.message())]);
            return self.later(AGAIN, Retry::Load(id, name));
        }
        if let Some(worker) = self.observed.worker_mut(id) {
            worker.loading.remove(&name);
            worker.refused.insert(name, Refused { version, reason: status.message().to_owned() });
        }
    }

    fn readiness(&mut self, readiness: &Readiness) {
        let published = &mut self.observed.published;
        let current = readiness.generation == published.swarm.generation;
        published.acknowledged = current;
        published.ready = current && readiness.ready;
    }

    /// All workers have what they should, and still the router is not ready.
    fn overdue(&mut self, readiness: Readiness) -> Result<(), UpError> {
        let starting = self.observed.workers.iter().any(|w| w.phase == Phase::Starting || !w.loading.is_empty());
        if starting || readiness.generation != self.observed.published.swarm.generation {
            return Ok(());
        }
        let problems = readiness.missing.into_iter();
        let problems: Vec<String> = problems.map(|m| format!("{} {}: {}", m.kind, m.name, m.why)).collect();
        if self.applied.is_none() {
            return Err(UpError::NotReady(problems));
        }
        self.tell_problems(problems);
        Ok(())
    }

    /// What stood in the way of another attempt is taken away; the plan does the rest.
    fn again(&mut self, retry: &Retry) {
        match retry {
            Retry::Worker(id) => self.observed.workers.retain(|worker| worker.id != *id),
            Retry::Load(id, name) => {
                if let Some(worker) = self.observed.worker_mut(*id) {
                    worker.loading.remove(name);
                }
            }
            Retry::Unload(id, name) => {
                if let Some(worker) = self.observed.worker_mut(*id) {
                    worker.unloading.remove(name);
                }
            }
            Retry::Router => {}
        }
    }
}

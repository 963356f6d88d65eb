//! The plan: actions that lead from the observed to the desired state.

use std::time::Instant;

use slm_residency::{AdapterAction, next_actions};
use slm_router::Swarm;

use super::{
    desired::{Desired, Launch},
    observed::{Observed, Phase, Worker, WorkerId},
    progress::settled,
    snapshot::{desired_worker, snapshot},
};

/// An action of the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a worker.
    StartWorker {
        /// The SlmModel that it serves.
        model: String,
        /// Its launch options.
        launch: Launch,
    },
    /// Request a load or unload of an adapter from a worker.
    Ask {
        /// The worker.
        worker: WorkerId,
        /// The request.
        action: AdapterAction,
    },
    /// Give the router this snapshot.
    Publish {
        /// With its new generation.
        swarm: Swarm,
        /// Of the desired state that it was made for.
        revision: u64,
    },
    /// Let a worker finish what runs, and end.
    StopWorker(WorkerId),
}

/// The next actions. Those of one plan may be carried out in any order, at once.
pub fn plan(desired: &Desired, observed: &Observed, now: Instant) -> Vec<Action> {
    let mut actions = Vec::new();
    let target = snapshot(desired, observed, now);
    let published = &observed.published;
    let current = target == published.swarm && published.swarm.generation > 0;
    let known = current && published.acknowledged;
    start(desired, observed, &mut actions);
    ask(desired, observed, now, known, &mut actions);
    if !current {
        actions.push(publish(target, desired.revision));
    } else if published.revision != desired.revision && actions.is_empty() && settled(desired, observed) {
        // What changed does not show in a snapshot, such as a scale. The new generation still says that it is done.
        actions.push(publish(target, desired.revision));
    } else if known {
        stop(desired, observed, &mut actions);
    }
    stop_unseen(desired, observed, &mut actions);
    actions
}

fn publish(target: Swarm, revision: u64) -> Action {
    Action::Publish { swarm: Swarm { generation: target.generation + 1, ..target }, revision }
}

fn start(desired: &Desired, observed: &Observed, actions: &mut Vec<Action>) {
    for model in desired.models.iter().filter(|model| desired_worker(model, observed).is_none()) {
        actions.push(Action::StartWorker { model: model.name.clone(), launch: model.launch.clone() });
    }
}

/// Adapters in and out of the workers that stay. What the router may still name is kept: only when the router is `known`
/// to use the snapshot, what that does not name goes.
fn ask(desired: &Desired, observed: &Observed, now: Instant, known: bool, actions: &mut Vec<Action>) {
    let workers = desired.models.iter().filter_map(|model| desired_worker(model, observed));
    for worker in workers.filter(|worker| worker.address().is_some()) {
        let named = observed.published.swarm.adapters.iter().filter(|adapter| adapter.model == worker.model);
        let keep = |name: &str| !known || named.clone().any(|adapter| adapter.name == name);
        let next_actions = next_actions(&desired.adapters_on(&worker.model), &worker.holdings, now, keep);
        actions.extend(next_actions.into_iter().map(|action| Action::Ask { worker: worker.id, action }));
    }
}

/// Workers that were replaced, or whose model is gone.
fn stop(desired: &Desired, observed: &Observed, actions: &mut Vec<Action>) {
    for worker in observed.workers.iter().filter(|worker| is_surplus(worker, desired, observed)) {
        let routed = worker.address().is_some_and(|address| {
            observed.published.swarm.models.iter().any(|model| model.workers.iter().any(|url| url == address))
        });
        if worker.address().is_some() && !routed {
            actions.push(Action::StopWorker(worker.id));
        }
    }
}

/// Workers that the router was never told of, and that are no longer wanted.
fn stop_unseen(desired: &Desired, observed: &Observed, actions: &mut Vec<Action>) {
    for worker in observed.workers.iter().filter(|worker| is_surplus(worker, desired, observed)) {
        if matches!(worker.phase, Phase::Starting | Phase::Resting(_)) {
            actions.push(Action::StopWorker(worker.id));
        }
    }
}

fn is_surplus(worker: &Worker, desired: &Desired, observed: &Observed) -> bool {
    let mut wanted = desired.models.iter().filter_map(|model| desired_worker(model, observed));
    worker.phase != Phase::Stopping && !wanted.any(|other| other.id == worker.id)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

//! From what should be and what is to what to do next.

use std::path::PathBuf;

use slm_router::Swarm;

use super::{
    desired::{Desired, Launch, Version},
    observed::{Observed, Phase, Worker, WorkerId},
    progress::settled,
    snapshot::{snapshot, wanted_worker},
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a worker.
    StartWorker {
        /// The SlmModel that it serves.
        model: String,
        /// How.
        launch: Launch,
    },
    /// Load an adapter, beside or in place of what has its name.
    LoadAdapter {
        /// On which worker.
        worker: WorkerId,
        /// Its name.
        name: String,
        /// Its folder.
        path: PathBuf,
        /// What must be found there.
        version: Version,
    },
    /// Give the router this snapshot.
    Publish {
        /// With its new generation.
        swarm: Swarm,
        /// Of the desired state that it was made for.
        revision: u64,
    },
    /// Drop an adapter that the router no longer names.
    UnloadAdapter {
        /// On which worker.
        worker: WorkerId,
        /// Its name.
        name: String,
        /// The version that is meant.
        digest: String,
    },
    /// Let a worker finish what runs, and end.
    StopWorker(WorkerId),
}

/// What to do next. Actions of one plan may be carried out in any order, at once.
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    start(desired, observed, &mut actions);
    load(desired, observed, &mut actions);
    let target = snapshot(desired, observed);
    let published = &observed.published;
    if target != published.swarm || published.swarm.generation == 0 {
        actions.push(publish(target, desired.revision));
    } else if published.revision != desired.revision && actions.is_empty() && settled(desired, observed) {
        // What changed does not show in a snapshot, such as a scale. The new generation still says that it is done.
        actions.push(publish(target, desired.revision));
    } else if published.acknowledged {
        unload(desired, observed, &mut actions);
        stop(desired, observed, &mut actions);
    }
    stop_unseen(desired, observed, &mut actions);
    actions
}

fn publish(target: Swarm, revision: u64) -> Action {
    Action::Publish { swarm: Swarm { generation: target.generation + 1, ..target }, revision }
}

fn start(desired: &Desired, observed: &Observed, actions: &mut Vec<Action>) {
    for model in desired.models.iter().filter(|model| wanted_worker(model, observed).is_none()) {
        actions.push(Action::StartWorker { model: model.name.clone(), launch: model.launch.clone() });
    }
}

fn load(desired: &Desired, observed: &Observed, actions: &mut Vec<Action>) {
    let workers = desired.models.iter().filter_map(|model| wanted_worker(model, observed));
    for worker in workers.filter(|worker| worker.address().is_some()) {
        for adapter in desired.adapters.iter().filter(|adapter| adapter.model == worker.model) {
            let (name, version) = (&adapter.name, &adapter.version);
            let there = worker.resident.get(name) == Some(version);
            // One load of a name at a time: the answer of the one that runs decides what comes next.
            if there || worker.loading.contains_key(name) || worker.refuses(name, version) {
                continue;
            }
            actions.push(Action::LoadAdapter {
                worker: worker.id,
                name: name.clone(),
                path: adapter.path.clone(),
                version: version.clone(),
            });
        }
    }
}

/// Adapters that nobody wants on a worker that stays.
fn unload(desired: &Desired, observed: &Observed, actions: &mut Vec<Action>) {
    let workers = desired.models.iter().filter_map(|model| wanted_worker(model, observed));
    for worker in workers.filter(|worker| worker.address().is_some()) {
        for (name, version) in &worker.resident {
            let wanted = desired.adapters.iter().any(|a| a.name == *name && a.model == worker.model);
            let served = observed.published.swarm.adapters.iter().any(|a| a.name == *name && a.model == worker.model);
            if !wanted && !served && !worker.unloading.contains(name) {
                let (name, digest) = (name.clone(), version.digest.clone());
                actions.push(Action::UnloadAdapter { worker: worker.id, name, digest });
            }
        }
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
    let mut wanted = desired.models.iter().filter_map(|model| wanted_worker(model, observed));
    worker.phase != Phase::Stopping && !wanted.any(|other| other.id == worker.id)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

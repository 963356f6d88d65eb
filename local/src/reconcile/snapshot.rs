//! The router's snapshot for now: the desired swarm where it is in place, the former one where it is not yet.

use std::time::Instant;

use slm_residency::VersionState;
use slm_router::{
    Swarm,
    swarm::{Adapter, External, Model},
};

use super::{
    desired::{Desired, DesiredAdapter, DesiredExternal, DesiredModel, UnusableAdapter, UnusableModel},
    observed::{Observed, Phase, Worker},
};

/// The worker that was started as `model` says, if there is one that is not on its way out.
pub(super) fn desired_worker<'o>(model: &DesiredModel, observed: &'o Observed) -> Option<&'o Worker> {
    observed
        .workers
        .iter()
        .find(|worker| worker.model == model.name && worker.launch == model.launch && worker.phase != Phase::Stopping)
}

/// The snapshot for the router, with the generation of the one before.
pub(super) fn snapshot(desired: &Desired, observed: &Observed, now: Instant) -> Swarm {
    let mut models: Vec<Model> =
        desired.models.iter().map(|model| model_entry(model, desired, observed, now)).collect();
    for model in &desired.unusable_models {
        if models.iter().all(|served| served.name != model.name) {
            models.push(unusable_model_entry(model));
        }
    }
    let served = desired.adapters.iter().map(|adapter| adapter_entry(adapter, &models, desired, observed));
    let replaced = |name: &str| desired.adapters.iter().any(|adapter| adapter.name == name);
    let unusable = desired.unusable_adapters.iter().filter(|adapter| !replaced(&adapter.name));
    let unusable = unusable.map(unusable_adapter_entry);
    let adapters = served.chain(unusable).collect();
    let generation = observed.published.swarm.generation;
    let external = |external: &DesiredExternal| External {
        name: external.name.clone(),
        expert: external.spec.expert.clone().unwrap_or_default(),
    };
    Swarm {
        generation,
        models,
        adapters,
        externals: desired.externals.iter().map(external).collect(),
        egress: observed.egress.clone().into_iter().collect(),
        routes: desired.routes.clone(),
        undecodable_objects: 0,
    }
}

fn model_entry(model: &DesiredModel, desired: &Desired, observed: &Observed, now: Instant) -> Model {
    let entry = |digest: &str, workers| Model {
        name: model.name.clone(),
        expert: model.expert.clone(),
        digest: digest.to_owned(),
        workers,
        refused: String::new(),
    };
    let wanted = desired.adapters_on(&model.name);
    let new = desired_worker(model, observed);
    let address = new.and_then(Worker::address);
    if let Some((worker, address)) = new.zip(address).filter(|(worker, _)| worker.holdings.complete(&wanted, now)) {
        return entry(&worker.launch.digest, vec![address.to_owned()]);
    }
    let former = observed.published.swarm.models.iter().find(|former| former.name == model.name);
    if let Some(former) = former {
        let alive = |address: &&String| observed.at(address).is_some_and(|worker| worker.model == model.name);
        let workers: Vec<String> = former.workers.iter().filter(alive).cloned().collect();
        if !workers.is_empty() {
            return entry(&former.digest, workers);
        }
    }
    // Nobody else could answer: better a worker whose adapters are still being loaded than none.
    entry(&model.launch.digest, address.map(str::to_owned).into_iter().collect())
}

fn adapter_entry(adapter: &DesiredAdapter, models: &[Model], desired: &Desired, observed: &Observed) -> Adapter {
    let entry = |model: &str, digest: &str| Adapter {
        name: adapter.name.clone(),
        model: model.to_owned(),
        expert: adapter.expert.clone(),
        digest: digest.to_owned(),
        refused: String::new(),
    };
    let resident_on = |model: &str| {
        let addresses = models.iter().filter(|entry| entry.name == model).flat_map(|entry| &entry.workers);
        addresses
            .filter_map(|address| observed.at(address))
            .find_map(|worker| worker.holdings.resident.get(&adapter.name))
    };
    if let Some(resident) = resident_on(&adapter.model) {
        return entry(&adapter.model, &resident.digest);
    }
    // It moves to another base: the former one serves it until it has arrived.
    let former = observed.published.swarm.adapters.iter().find(|former| former.name == adapter.name);
    match former.and_then(|former| Some((former, resident_on(&former.model)?))) {
        Some((former, resident)) => entry(&former.model, &resident.digest),
        None => Adapter {
            refused: refusal(adapter, desired, observed).unwrap_or_default(),
            ..entry(&adapter.model, &adapter.digest)
        },
    }
}

/// Reason why the worker cannot load `adapter` until something about it changes.
fn refusal(adapter: &DesiredAdapter, desired: &Desired, observed: &Observed) -> Option<String> {
    let model = desired.models.iter().find(|model| model.name == adapter.model)?;
    let worker = desired_worker(model, observed)?;
    match worker.holdings.version_state(&adapter.name, &adapter.version()) {
        VersionState::Refused(refused) if refused.needs_change() => Some(refused.message.clone()),
        _ => None,
    }
}

fn unusable_model_entry(model: &UnusableModel) -> Model {
    Model {
        name: model.name.clone(),
        expert: model.expert.clone(),
        digest: String::new(),
        workers: Vec::new(),
        refused: model.problem.clone(),
    }
}

fn unusable_adapter_entry(adapter: &UnusableAdapter) -> Adapter {
    Adapter {
        name: adapter.name.clone(),
        model: adapter.model.clone(),
        expert: adapter.expert.clone(),
        digest: String::new(),
        refused: adapter.problem.clone(),
    }
}

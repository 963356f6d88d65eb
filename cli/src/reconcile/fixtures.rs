//! Small swarms to decide over.

use std::{collections::BTreeMap, path::PathBuf};

use slm_crds::{
    SwarmRouteSpec,
    model::Precision,
    route::{Target, TargetKind},
};
use slm_router::swarm::Route;

use super::{Desired, Launch, Observed, Phase, Version, WantedAdapter, WantedModel, Worker, WorkerId};

pub(super) fn launch(digest: &str) -> Launch {
    Launch {
        path: PathBuf::from("model.gguf"),
        digest: digest.to_owned(),
        precision: Precision::Auto,
        context_length: None,
        sequences_max: 8,
        threads: None,
        adapter_slots: 16,
        adapter_rank_max: 64,
    }
}

pub(super) fn version(digest: &str) -> Version {
    Version { digest: digest.to_owned(), scale: 1.0 }
}

/// `(name, digest)` of models, `(name, model, digest)` of adapters.
pub(super) fn desired(revision: u64, models: &[(&str, &str)], adapters: &[(&str, &str, &str)]) -> Desired {
    let model = |(name, digest): &(&str, &str)| WantedModel {
        name: (*name).to_owned(),
        description: String::new(),
        launch: launch(digest),
    };
    let adapter = |(name, model, digest): &(&str, &str, &str)| WantedAdapter {
        name: (*name).to_owned(),
        model: (*model).to_owned(),
        description: String::new(),
        path: PathBuf::from(name),
        version: version(digest),
    };
    Desired {
        revision,
        models: models.iter().map(model).collect(),
        adapters: adapters.iter().map(adapter).collect(),
        routes: Vec::new(),
    }
}

pub(super) fn route(name: &str, to: &str) -> Route {
    let fallback = Target { kind: TargetKind::SlmModel, name: to.to_owned() };
    Route { name: name.to_owned(), spec: SwarmRouteSpec { description: None, rules: Vec::new(), fallback } }
}

/// A worker that serves `model` of `digest` at `http://ID` with `(name, digest)` resident.
pub(super) fn serving(id: u64, model: &str, digest: &str, resident: &[(&str, &str)]) -> Worker {
    let mut worker = Worker::new(WorkerId(id), model, &launch(digest));
    worker.phase = Phase::Serving(format!("http://{id}"));
    let resident: BTreeMap<String, Version> =
        resident.iter().map(|(name, digest)| ((*name).to_owned(), version(digest))).collect();
    worker.tell(resident);
    worker
}

/// Carries out every action as the world would when all goes well, until there is nothing to do; returns them.
pub(super) fn run(desired: &Desired, observed: &mut Observed) -> Vec<super::Action> {
    let mut done = Vec::new();
    for _ in 0..32 {
        let actions = super::plan::plan(desired, observed);
        if actions.is_empty() {
            return done;
        }
        for action in &actions {
            carry_out(action, observed);
        }
        done.extend(actions);
    }
    panic!("never at rest: {done:#?}");
}

fn carry_out(action: &super::Action, observed: &mut Observed) {
    use super::Action;
    match action {
        Action::StartWorker { model, launch } => {
            let id = observed.workers.iter().map(|worker| worker.id.0).max().unwrap_or(0) + 1;
            let mut worker = Worker::new(WorkerId(id), model, launch);
            worker.phase = Phase::Serving(format!("http://{id}"));
            observed.workers.push(worker);
        }
        Action::LoadAdapter { worker, name, version, .. } => {
            let worker = observed.worker_mut(*worker).expect("a worker that is there");
            worker.resident.insert(name.clone(), version.clone());
        }
        Action::Publish { swarm, revision } => {
            let (swarm, revision) = (swarm.clone(), *revision);
            observed.published = super::Published { swarm, revision, acknowledged: true, ready: true };
        }
        Action::UnloadAdapter { worker, name, .. } => {
            let worker = observed.worker_mut(*worker).expect("a worker that is there");
            worker.resident.remove(name).expect("an adapter that is there");
        }
        Action::StopWorker(id) => observed.workers.retain(|worker| worker.id != *id),
    }
}

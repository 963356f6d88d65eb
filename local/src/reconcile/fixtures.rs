//! Small swarms to decide over.

use std::{path::PathBuf, time::Instant};

use slm_crds::{
    SwarmRouteSpec,
    expert::Expert,
    model::{Precision, SpeculativeMethod, Task},
    route::{Target, TargetKind},
};
use slm_launch::ExecutionProvider;
use slm_proto::v1::{AdapterPhase, AdapterState, WorkerState};
use slm_residency::{AdapterAction, Resident};
use slm_router::swarm::Route;

use super::{Desired, DesiredAdapter, DesiredModel, Launch, Observed, Phase, UnusableAdapter, Worker, WorkerId};

pub(super) fn launch(digest: &str) -> Launch {
    Launch {
        path: PathBuf::from("model.gguf"),
        digest: digest.to_owned(),
        execution_provider: ExecutionProvider::Cpu,
        task: Task::Generate,
        precision: Precision::Auto,
        context_length: None,
        sequences_max: 8,
        kv_cache_bytes: None,
        prefix_cache: true,
        speculative: SpeculativeMethod::PromptLookup,
        threads: None,
        adapter_slots: 16,
        adapter_host_bytes: 1 << 20,
        adapter_rank_max: 64,
    }
}

/// Has a worker say that it holds `(name, digest)`.
pub(super) fn tell(worker: &mut Worker, resident: &[(&str, &str)]) {
    let adapter = |(name, digest): &(&str, &str)| AdapterState {
        name: (*name).to_owned(),
        digest: (*digest).to_owned(),
        scale: 1.0,
        phase: AdapterPhase::Serving.into(),
        ..AdapterState::default()
    };
    let adapters = resident.iter().map(adapter).collect();
    worker.holdings.tell(&WorkerState { adapters, ..WorkerState::default() }, Instant::now());
}

/// `(name, digest)` of models, `(name, model, digest)` of adapters.
pub(super) fn desired(revision: u64, models: &[(&str, &str)], adapters: &[(&str, &str, &str)]) -> Desired {
    let model = |(name, digest): &(&str, &str)| DesiredModel {
        name: (*name).to_owned(),
        expert: Expert::default(),
        launch: launch(digest),
    };
    let adapter = |(name, model, digest): &(&str, &str, &str)| DesiredAdapter {
        name: (*name).to_owned(),
        model: (*model).to_owned(),
        expert: Expert::default(),
        path: PathBuf::from(name),
        digest: (*digest).to_owned(),
        scale: 1.0,
        pinned: false,
    };
    Desired {
        revision,
        models: models.iter().map(model).collect(),
        adapters: adapters.iter().map(adapter).collect(),
        unusable_models: Vec::new(),
        unusable_adapters: Vec::new(),
        externals: Vec::new(),
        routes: Vec::new(),
        fetching: false,
    }
}

pub(super) fn unusable(name: &str, model: &str, problem: &str) -> UnusableAdapter {
    UnusableAdapter {
        name: name.to_owned(),
        model: model.to_owned(),
        expert: Expert::default(),
        path: None,
        problem: problem.to_owned(),
    }
}

pub(super) fn route(name: &str, to: &str) -> Route {
    let fallback = Target { kind: TargetKind::SlmModel, name: to.to_owned() };
    Route { name: name.to_owned(), spec: SwarmRouteSpec::to(fallback) }
}

/// A worker that serves `model` of `digest` at `http://ID` with `(name, digest)` resident.
pub(super) fn serving(id: u64, model: &str, digest: &str, resident: &[(&str, &str)]) -> Worker {
    let mut worker = Worker::new(WorkerId(id), model, &launch(digest));
    worker.phase = Phase::Serving(format!("http://{id}"));
    tell(&mut worker, resident);
    worker
}

/// Carries out every action as the world would when all goes well, until there is nothing to do; returns them.
pub(super) fn run(desired: &Desired, observed: &mut Observed) -> Vec<super::Action> {
    let mut done = Vec::new();
    for _ in 0..32 {
        let actions = super::plan::plan(desired, observed, Instant::now());
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
        Action::Ask { worker, action } => {
            let worker = observed.worker_mut(*worker).expect("a worker that is there");
            match action {
                AdapterAction::Load { name, version } => {
                    let resident = Resident {
                        source: version.source.clone(),
                        digest: version.digest.clone().expect("files have a digest"),
                        scale: version.scale,
                        ..Resident::default()
                    };
                    worker.holdings.resident.insert(name.clone(), resident);
                }
                AdapterAction::Cancel { name } => drop(worker.holdings.loading.remove(name)),
                AdapterAction::Unload { name, .. } => {
                    worker.holdings.resident.remove(name).expect("an adapter that is there");
                }
            }
        }
        Action::Publish { swarm, revision } => {
            let (swarm, revision) = (swarm.clone(), *revision);
            observed.published = super::Published { swarm, revision, acknowledged: true, ready: true };
        }
        Action::StopWorker(id) => observed.workers.retain(|worker| worker.id != *id),
    }
}

//! Progress towards the desired state: working, applied, partly applied or stuck.

use slm_residency::{DesiredAdapters, VersionState};

use super::{
    desired::Desired,
    observed::{Observed, Phase, Worker},
    snapshot::desired_worker,
};

/// Progress of the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something is under way.
    Working,
    /// All of it is served, and nothing else is left over.
    Applied,
    /// All of it is served but for models and adapters that cannot be used. Adapters that their workers refuse are named, each
    /// with the reason; objects whose artifacts cannot be read were named when the manifests were.
    Partly(Vec<String>),
    /// Nothing is under way, and problems remain: each names the object and the reason.
    Stuck(Vec<String>),
}

/// Progress of the swarm. Meaningful when [`plan`](super::plan::plan) has no action.
pub fn progress(desired: &Desired, observed: &Observed) -> Progress {
    if observed.workers.iter().any(|worker| worker.phase == Phase::Stopping || !worker.holdings.unloading.is_empty()) {
        return Progress::Working;
    }
    if !settled(desired, observed) || !observed.published.acknowledged {
        return Progress::Working;
    }
    let (models, adapters) = problems(desired, observed);
    if !models.is_empty() {
        return Progress::Stuck([models, adapters].concat());
    }
    if desired.fetching || !observed.published.ready || observed.published.revision != desired.revision {
        return Progress::Working;
    }
    let usable = desired.unusable_models.is_empty() && desired.unusable_adapters.is_empty();
    if adapters.is_empty() && usable { Progress::Applied } else { Progress::Partly(adapters) }
}

/// True when no desired worker is starting or loading.
pub fn settled(desired: &Desired, observed: &Observed) -> bool {
    desired.models.iter().all(|model| {
        desired_worker(model, observed).is_some_and(|worker| match worker.phase {
            Phase::Starting => false,
            Phase::Serving(_) => {
                worker.holdings.loading.is_empty() && !tries(worker, &desired.adapters_on(&worker.model))
            }
            Phase::Resting(_) | Phase::Stopping => true,
        })
    })
}

/// True when a load is pending retry and may succeed.
fn tries(worker: &Worker, wanted: &DesiredAdapters) -> bool {
    let may_pass = |stand| matches!(stand, VersionState::Refused(refused) if !refused.needs_change());
    wanted.iter().any(|(name, version)| may_pass(worker.holdings.version_state(name, version)))
}

/// Problems of models, and problems of adapters.
fn problems(desired: &Desired, observed: &Observed) -> (Vec<String>, Vec<String>) {
    let (mut models, mut adapters) = (Vec::new(), Vec::new());
    for model in &desired.models {
        let Some(worker) = desired_worker(model, observed) else { continue };
        if let Phase::Resting(reason) = &worker.phase {
            models.push(format!("SlmModel {}: {reason}", model.name));
        }
        for adapter in desired.adapters.iter().filter(|adapter| adapter.model == model.name) {
            if let VersionState::Refused(refused) = worker.holdings.version_state(&adapter.name, &adapter.version()) {
                adapters.push(format!("LoraAdapter {}: {}", adapter.name, refused.message));
            }
        }
    }
    (models, adapters)
}

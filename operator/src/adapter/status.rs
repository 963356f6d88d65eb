//! LoraAdapter status: the state of the adapter on each worker pod.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt as _, runtime::controller::Action};
use slm_crds::{
    LoraAdapter,
    adapter::{Instance, LoraAdapterStatus, Resolved},
    status::Condition,
};
use slm_proto::v1::{AdapterPhase, AdapterState};
use slm_residency::{Refused, Version, VersionState, placement::place, refusal::RetryWhen};

use crate::{
    conditions::Verdict,
    context::{Context, Error},
    fleet::{self, PodView},
};

/// Status of an adapter that is loaded nowhere.
pub(super) async fn refused(context: &Context, adapter: &LoraAdapter, verdict: &Verdict) -> Result<Action, Error> {
    let former = adapter.status.clone().unwrap_or_default();
    let next = |conditions| LoraAdapterStatus {
        observed_generation: adapter.metadata.generation,
        loaded: None,
        instances: Vec::new(),
        conditions,
        ..former.clone()
    };
    context.report(adapter, &former.conditions, verdict, next, adapter.status.as_ref()).await
}

/// Status of an adapter that workers should hold.
pub(super) async fn residency(context: &Context, adapter: &LoraAdapter) -> Result<Action, Error> {
    let Some(version) = fleet::version(adapter) else { return Ok(Action::await_change()) };
    let snapshot = context.fleet.snapshot();
    let name = adapter.name_any();
    let of_model = || snapshot.values().filter(|pod| pod.model == adapter.spec.model_ref.name);
    let placed = place(&name, adapter.spec.placement.replicas, of_model().map(|pod| pod.name.as_str()));
    let pods: Vec<&Arc<PodView>> = of_model().filter(|pod| placed.contains(&pod.name.as_str())).collect();
    let serving = pods.iter().filter(|pod| serves(pod, &name, &version)).count();
    let verdict = verdict(&name, &version, &pods, serving);
    let example = pods.iter().find_map(|pod| current(pod, &name).filter(|_| serves(pod, &name, &version)));
    let former = adapter.status.clone().unwrap_or_default();
    let resolved = example.map(|state| Resolved {
        uri: adapter.spec.source.uri.clone(),
        // The digest of the fetched artifact, by which it can be fetched again.
        digest: Some(&state.source_digest).filter(|digest| !digest.is_empty()).unwrap_or(&state.digest).clone(),
    });
    let next = |conditions: Vec<Condition>| LoraAdapterStatus {
        observed_generation: adapter.metadata.generation,
        digest: example.map(|state| state.digest.clone()).or_else(|| former.digest.clone()),
        resolved: resolved.clone().or_else(|| former.resolved.clone()),
        rank: example.map(|state| state.rank_max).or(former.rank),
        target_modules: example.map_or_else(|| former.target_modules.clone(), |state| state.target_modules.clone()),
        bytes: example.map(|state| state.bytes).or(former.bytes),
        loaded: Some(format!("{serving}/{}", pods.len())),
        instances: pods.iter().flat_map(|pod| instances(pod, &name, &version)).collect(),
        conditions,
    };
    let action = context.report(adapter, &former.conditions, &verdict, next, adapter.status.as_ref()).await?;
    // Safety requeue, in case an event was lost.
    Ok(if serving == pods.len() { action } else { Action::requeue(Duration::from_secs(30)) })
}

fn serves(pod: &PodView, name: &str, version: &Version) -> bool {
    pod.holdings.version_state(name, version) == VersionState::Resident
}

fn refusal<'p>(pod: &'p PodView, name: &str, version: &Version) -> Option<&'p Refused> {
    match pod.holdings.version_state(name, version) {
        VersionState::Refused(refused) => Some(refused),
        VersionState::Resident | VersionState::Loading | VersionState::Missing => None,
    }
}

fn verdict(name: &str, version: &Version, pods: &[&Arc<PodView>], serving: usize) -> Verdict {
    let all = pods.len();
    if all == 0 {
        return Verdict::progressing("NoWorkers", "its model has no worker yet");
    }
    let refusal = pods.iter().find_map(|pod| Some((pod, refusal(pod, name, version)?)));
    if let Some((pod, refused)) = refusal {
        let what =
            format!("{serving}/{all} workers serve this version; pod {} refused it: {}", pod.name, refused.message);
        return Verdict::wrong(refused.reason.clone(), what);
    }
    if serving == all {
        return Verdict::ready(format!("{serving}/{all} workers serve it"));
    }
    let silent = pods.iter().find_map(|pod| Some((pod, pod.state.as_ref().err()?)));
    match silent {
        Some((pod, why)) => Verdict::progressing(
            "WaitingForWorker",
            format!("{serving}/{all} workers serve it; pod {}: {why}", pod.name),
        ),
        None => Verdict::progressing("Loading", format!("{serving}/{all} workers serve this version")),
    }
}

fn current<'p>(pod: &'p PodView, name: &str) -> Option<&'p AdapterState> {
    let state = pod.state.as_ref().ok()?;
    state.adapters.iter().find(|adapter| adapter.name == name && adapter.phase() == AdapterPhase::Serving)
}

/// One entry for each version of the adapter on a pod, and one if the wanted version is not there.
fn instances(pod: &PodView, name: &str, version: &Version) -> Vec<Instance> {
    let refused = refusal(pod, name, version);
    let held = pod.state.as_ref().ok().into_iter().flat_map(|state| &state.adapters);
    let mut instances: Vec<Instance> = held
        .filter(|adapter| adapter.name == name)
        .map(|adapter| Instance {
            pod: pod.name.clone(),
            state: if adapter.phase() == AdapterPhase::Serving { "Serving" } else { "Retiring" }.to_owned(),
            digest: Some(adapter.digest.clone()),
            loaded_at: timestamp(adapter.loaded_at_ms),
            load_millis: Some(adapter.load_ms),
            last_error: None,
        })
        .collect();
    if let Some(refused) = refused {
        instances.push(Instance {
            pod: pod.name.clone(),
            state: if refused.retry_when == RetryWhen::Changed { Instance::REFUSED } else { "Failed" }.to_owned(),
            last_error: Some(refused.message.clone()),
            ..Instance::default()
        });
    } else if !serves(pod, name, version) {
        let state = if pod.state.is_ok() { "Loading" } else { "Unknown" }.to_owned();
        let last_error = pod.state.as_ref().err().map(|why| why.to_string());
        instances.push(Instance { pod: pod.name.clone(), state, last_error, ..Instance::default() });
    }
    instances
}

fn timestamp(unix_ms: u64) -> Option<String> {
    Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok().map(|time| time.to_string())
}

//! Status step: the model's status from its Deployment, its pods and its workers' states.

use k8s_openapi::api::apps::v1::DeploymentStatus;
use kube::{ResourceExt as _, runtime::controller::Action};
use slm_crds::{SlmModel, model::SlmModelStatus, status::Condition};
use slm_proto::v1::WorkerState;

use super::{apply::Applied, pods::trouble};
use crate::{
    conditions::Verdict,
    context::{Context, Error},
    fleet::PodView,
    names,
};

/// Status of a refused model. Objects applied earlier are left as they are.
pub(super) async fn refused(context: &Context, model: &SlmModel, verdict: &Verdict) -> Result<Action, Error> {
    let former = model.status.clone().unwrap_or_default();
    let next =
        |conditions| SlmModelStatus { conditions, observed_generation: model.metadata.generation, ..former.clone() };
    context.report(model, &former.conditions, verdict, next, model.status.as_ref()).await
}

/// Status of a model whose objects are applied.
pub(super) async fn applied(context: &Context, model: &SlmModel, applied: &Applied) -> Result<Action, Error> {
    let name = model.name_any();
    let deployment = applied.deployment.status.clone().unwrap_or_default();
    let count = |number: Option<i32>| u32::try_from(number.unwrap_or(0)).unwrap_or(0);
    let seen = deployment.observed_generation >= applied.deployment.metadata.generation;
    let counts = Counts {
        wanted: model.spec.replicas,
        all: count(deployment.replicas),
        updated: count(deployment.updated_replicas),
        ready: count(deployment.ready_replicas),
    };
    let snapshot = context.fleet.snapshot();
    let workers: Vec<&PodView> = snapshot.values().map(AsRef::as_ref).filter(|pod| pod.model == name).collect();
    let verdict = match replica_failure(&deployment, counts) {
        Some(failure) if seen => failure,
        _ if seen => verdict(context, model, counts, &workers),
        _ => rolling_out(counts),
    };
    let selector = names::selector(&name).into_iter().map(|(key, value)| format!("{key}={value}"));
    let selector = selector.collect::<Vec<_>>().join(",");
    let state = workers.iter().find_map(|worker| worker.state.as_deref().ok());
    let said = |field: fn(&WorkerState) -> &String| state.map(field).filter(|value| !value.is_empty()).cloned();
    let (provider, flavour) = (said(|state| &state.execution_provider), said(|state| &state.flavour));
    let digest = state.map(|state| state.model_digest.clone());
    let former = model.status.clone().unwrap_or_default();
    let next = |conditions: Vec<Condition>| SlmModelStatus {
        observed_generation: model.metadata.generation,
        replicas: counts.all,
        ready_replicas: counts.ready,
        selector: Some(selector.clone()),
        digest: digest.clone().or_else(|| former.digest.clone()),
        execution_provider: provider.clone().or_else(|| former.execution_provider.clone()),
        flavour: flavour.clone().or_else(|| former.flavour.clone()),
        conditions,
    };
    context.report(model, &former.conditions, &verdict, next, model.status.as_ref()).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    wanted: u32,
    all: u32,
    updated: u32,
    ready: u32,
}

fn verdict(context: &Context, model: &SlmModel, counts: Counts, workers: &[&PodView]) -> Verdict {
    let Counts { wanted, all, updated, ready } = counts;
    if wanted == 0 && all == 0 {
        return Verdict::wrong("ScaledToZero", "spec.replicas is 0: nothing serves; `kubectl scale slm` changes it");
    }
    if ready >= wanted && updated >= wanted && all == wanted {
        return Verdict::ready(format!("{ready}/{wanted} workers serve"));
    }
    let name = model.name_any();
    let mut pods = context.objects.pods.state();
    pods.retain(|pod| pod.labels().get(names::MODEL) == Some(&name));
    // Sorted, so that the condition does not change with the order of the listing.
    pods.sort_by_key(|pod| pod.name_any());
    if let Some(trouble) = pods.iter().find_map(|pod| trouble(pod)) {
        return Verdict { message: format!("{ready}/{wanted} workers serve; {}", trouble.message), ..trouble };
    }
    match workers.iter().find(|worker| worker.state.is_ok() && !worker.holdings.loading.is_empty()) {
        Some(worker) => {
            let names: Vec<&str> = worker.holdings.loading.keys().map(String::as_str).collect();
            let what = format!("{ready}/{wanted} workers serve; pod {} loads {}", worker.name, names.join(", "));
            Verdict::progressing("LoadingAdapters", what)
        }
        None => rolling_out(counts),
    }
}

/// Reason why the Deployment cannot create pods: a quota, a limit range or an admission webhook.
fn replica_failure(deployment: &DeploymentStatus, counts: Counts) -> Option<Verdict> {
    let failure = deployment
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    let reason = failure.reason.clone().filter(|reason| !reason.is_empty()).unwrap_or("FailedCreate".to_owned());
    let Counts { wanted, ready, .. } = counts;
    let why = failure.message.as_deref().unwrap_or("Kubernetes does not say why");
    Some(Verdict::wrong(reason, format!("{ready}/{wanted} workers serve; a pod cannot be created: {why}")))
}

fn rolling_out(counts: Counts) -> Verdict {
    let Counts { wanted, updated, ready, .. } = counts;
    Verdict::progressing("RollingOut", format!("{ready}/{wanted} workers serve, {updated} of them of this revision"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quota_that_refuses_pods_is_said() {
        let said = |status: &str| {
            let why = "pods \"p\" is forbidden: exceeded quota: team, requested: pods=1, used: pods=4, limited: pods=4";
            let deployment: DeploymentStatus = serde_json::from_value(json!({ "conditions": [
                { "type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable" },
                { "type": "ReplicaFailure", "status": status, "reason": "FailedCreate", "message": why },
            ] }))
            .expect("a status");
            replica_failure(&deployment, Counts { wanted: 2, all: 1, updated: 1, ready: 1 })
        };
        let verdict = said("True").expect("a failure");
        assert_eq!(verdict.reason, "FailedCreate");
        assert!(verdict.message.starts_with("1/2 workers serve") && verdict.message.contains("exceeded quota: team"));
        assert_eq!(said("False"), None);
    }
}

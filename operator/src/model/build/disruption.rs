//! PodDisruptionBudget of a model's workers.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt as _;

use super::{Plan, metadata};
use crate::names;

pub(super) fn build(plan: Plan<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(plan.model),
        spec: Some(PodDisruptionBudgetSpec {
            // One worker at a time, even the only one: a budget of zero would block every node upgrade.
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(names::selector(&plan.model.name_any())),
                ..LabelSelector::default()
            }),
            // A worker that is not ready serves no requests, so it must not block the drain of its node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

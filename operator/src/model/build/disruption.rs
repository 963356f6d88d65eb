//! How many workers a drain or an upgrade of nodes may take away at once.

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
            // One at a time, and the only one too: a budget that nothing may break would block every node's upgrade.
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(names::selector(&plan.model.name_any())),
                ..LabelSelector::default()
            }),
            // A worker that is not ready serves nobody: it must not stand in the way of its node's end.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

//! Build step: the Kubernetes objects of a validated model. Pure and infallible.

mod container;
mod deployment;
mod disruption;
mod service;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource as _, ResourceExt as _};
use slm_crds::{AcceleratorProfileSpec, SlmModel};
use slm_launch::ExecutionProvider;

use crate::{config::WorkerPods, names};

/// Inputs of a build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'p> {
    /// The model.
    pub(crate) model: &'p SlmModel,
    /// Accelerator profile of its workers.
    pub(crate) profile: &'p AcceleratorProfileSpec,
    /// Execution provider, from the profile.
    pub(crate) provider: ExecutionProvider,
    /// Settings common to all worker pods.
    pub(crate) pods: &'p WorkerPods,
}

/// Desired objects of one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// Service account of the pods: no permissions, no token.
    pub(crate) service_account: ServiceAccount,
    /// Headless Service, by which routers and the operator find the pods.
    pub(crate) service: Service,
    /// Bound on simultaneous evictions.
    pub(crate) disruption_budget: PodDisruptionBudget,
    /// The worker pods.
    pub(crate) deployment: Deployment,
}

/// The objects of a model.
#[must_use]
pub(crate) fn build(plan: Plan<'_>) -> Prepared {
    Prepared {
        service_account: ServiceAccount {
            metadata: metadata(plan.model),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        service: service::build(plan),
        disruption_budget: disruption::build(plan),
        deployment: deployment::build(plan),
    }
}

/// Metadata with an owner reference: the object is deleted with its model.
fn metadata(model: &SlmModel) -> ObjectMeta {
    let name = model.name_any();
    ObjectMeta {
        name: Some(names::worker(&name)),
        namespace: model.namespace(),
        labels: Some(names::labels(&name)),
        owner_references: Some(vec![OwnerReference {
            api_version: SlmModel::api_version(&()).into_owned(),
            kind: SlmModel::kind(&()).into_owned(),
            name,
            uid: model.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

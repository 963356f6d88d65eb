//! Server-side apply of what was built: what we do not say stays as it is, what others say of our fields does not.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use slm_crds::SlmModel;

use super::build::Prepared;
use crate::{context::Error, names};

/// The objects as the API server has them now.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) deployment: Deployment,
}

pub(super) async fn apply(client: &Client, model: &SlmModel, prepared: Prepared) -> Result<Applied, Error> {
    let namespace = model.namespace().unwrap_or_default();
    one(client, &namespace, &prepared.service_account, "applying the ServiceAccount").await?;
    one(client, &namespace, &prepared.service, "applying the Service").await?;
    one(client, &namespace, &prepared.disruption_budget, "applying the PodDisruptionBudget").await?;
    let deployment = one(client, &namespace, &prepared.deployment, "applying the Deployment").await?;
    Ok(Applied { deployment })
}

async fn one<K>(client: &Client, namespace: &str, object: &K, what: &'static str) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply(names::MANAGER).force();
    api.patch(&object.name_any(), &parameters, &Patch::Apply(object)).await.map_err(Error::api(what))
}

//! Apply step: server-side apply of the built objects. Fields that we do not set keep their value; fields that we set
//! are ours.

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
use crate::{conditions::Verdict, context::Error, names};

/// The objects as the API server returned them.
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

/// A permanent refusal, which only a change of the model or of the cluster's policies mends. `None` for a transient
/// error.
pub(super) fn refusal(error: &Error) -> Option<Verdict> {
    let Error::Api { what, source } = error else { return None };
    match source.as_ref() {
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            Some(Verdict::wrong("ApplyRefused", format!("{what} was refused: {}", status.message)))
        }
        _ => None,
    }
}

async fn one<K>(client: &Client, namespace: &str, object: &K, what: &'static str) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply(names::MANAGER).force();
    api.patch(&object.name_any(), &parameters, &Patch::Apply(object)).await.map_err(Error::api(what))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn error(code: u16) -> Error {
        let status = Status { code, message: "exceeded quota: pods".to_owned(), ..Status::default() };
        Error::api("applying the Deployment")(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn what_is_refused_is_told_from_what_passes() {
        for code in [400, 403, 422] {
            let verdict = refusal(&error(code)).expect("a refusal");
            assert_eq!((&*verdict.reason, verdict.message.contains("exceeded quota")), ("ApplyRefused", true));
        }
        for code in [404, 409, 429, 500, 503] {
            assert_eq!(refusal(&error(code)), None, "{code}");
        }
    }
}

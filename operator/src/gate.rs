//! The readiness gate of a worker pod: it is ready when its adapters are loaded.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::names;

/// Lets a pod become ready. What fails now is tried again with the pod's next change.
pub(crate) fn open(client: Client, namespace: String, pod: String) {
    tokio::spawn(async move {
        let now = Timestamp::now().to_string();
        let condition = json!({
            "type": names::ADAPTERS_LOADED, "status": "True", "lastTransitionTime": now,
            "reason": "Loaded", "message": "every adapter of its model is loaded",
        });
        let patch = json!({ "status": { "conditions": [condition] } });
        let pods: Api<Pod> = Api::namespaced(client, &namespace);
        if let Err(error) = pods.patch_status(&pod, &PatchParams::default(), &Patch::Strategic(patch)).await {
            tracing::warn!(pod, %error, "its readiness gate stays closed");
        }
    });
}

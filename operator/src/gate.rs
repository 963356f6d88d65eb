//! Readiness gate: a worker pod becomes ready when its adapters are loaded.

use std::{future::pending, time::Duration};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use slm_watch::ReconnectBackoff;
use tokio::time::sleep;

use crate::names;

/// Pause after a permanent refusal, such as a missing permission.
const AGAIN: Duration = Duration::from_secs(2);

/// Opens the readiness gate of a pod, retrying until it succeeds. Never returns for a pod that is gone; the caller
/// drops the future.
pub(crate) async fn open(client: Client, namespace: &str, pod: &str, uid: &str) {
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let mut pauses = ReconnectBackoff::default();
    loop {
        let condition = json!({
            "type": names::ADAPTERS_LOADED, "status": "True", "lastTransitionTime": Timestamp::now().to_string(),
            "reason": "Loaded", "message": "every adapter of its model is loaded, or is not waited for",
        });
        // The uid makes the patch fail on another pod of the same name.
        let patch = json!({ "metadata": { "uid": uid }, "status": { "conditions": [condition] } });
        match pods.patch_status(pod, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => pending().await,
            Err(error) => tracing::warn!(pod, %error, "the readiness gate could not be opened; retrying"),
        }
        sleep(pauses.next().unwrap_or(AGAIN)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::fake::Server;

    const PATH: &str = "/api/v1/namespaces/n/pods/p";

    fn gate(server: &Server) -> Option<String> {
        server.get(PATH)?["status"]["conditions"][0]["status"].as_str().map(str::to_owned)
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_is_opened_however_often_that_fails() {
        let server = Server::new();
        server.put(PATH, json!({ "metadata": { "name": "p", "uid": "u" } }));
        for code in [500, 409, 403, 500, 500, 429] {
            server.refuse(code);
        }
        timeout(Duration::from_secs(60), open(server.client(), "n", "p", "u")).await.expect("it opens");
        assert_eq!(gate(&server).as_deref(), Some("True"));
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_pod_that_is_gone_nothing_is_asked() {
        let server = Server::new();
        let opening = timeout(Duration::from_secs(60), open(server.client(), "n", "p", "u")).await;
        assert!(opening.is_err() && server.writes() == 0);
    }
}

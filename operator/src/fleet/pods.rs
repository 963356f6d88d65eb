//! Worker pods, as far as the fleet controller needs them.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::names;

/// A reachable worker pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkerPod {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) model: String,
    /// `IP:PORT` of its gRPC endpoint.
    pub(super) address: String,
    /// Whether its readiness gate is open.
    pub(super) gate_open: bool,
}

impl WorkerPod {
    /// `None` while the pod has no address, or is terminating.
    pub(super) fn read(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let ip = status.pod_ip.as_deref().filter(|ip| !ended && !ip.is_empty())?;
        let ip: std::net::IpAddr = ip.parse().ok()?;
        let gate_open = status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == names::ADAPTERS_LOADED && condition.status == "True");
        Some(Self {
            name: pod.name_any(),
            uid: pod.uid()?,
            model: pod.labels().get(names::MODEL)?.clone(),
            address: std::net::SocketAddr::new(ip, names::GRPC_PORT).to_string(),
            gate_open,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_pods_with_an_address_count() {
        let pod = |phase: &str, ip: Option<&str>, gate: &str| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": "p", "uid": "u", "labels": { "slmswarm.io/model": "smol" } },
                "status": { "phase": phase, "podIP": ip,
                    "conditions": [{ "type": "slmswarm.io/AdaptersLoaded", "status": gate }] },
            }))
            .expect("a pod");
            WorkerPod::read(&pod).map(|pod| (pod.address, pod.gate_open))
        };
        assert_eq!(pod("Running", Some("10.0.0.1"), "True"), Some(("10.0.0.1:9090".to_owned(), true)));
        assert_eq!(pod("Running", Some("fd00::1"), "False"), Some(("[fd00::1]:9090".to_owned(), false)));
        assert_eq!(pod("Pending", None, "False"), None);
        assert_eq!(pod("Failed", Some("10.0.0.1"), "True"), None);
    }
}

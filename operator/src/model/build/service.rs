//! Headless Service: a name for the set of worker pods, whose addresses routers and the operator read.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt as _;

use super::{Plan, metadata};
use crate::names;

pub(super) fn build(plan: Plan<'_>) -> Service {
    let port = |name: &str, number: u16, protocol: &str| ServicePort {
        name: Some(name.to_owned()),
        port: number.into(),
        target_port: Some(IntOrString::String(name.to_owned())),
        app_protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    };
    // Plain-text HTTP/2 has an appProtocol of its own; over TLS it is negotiated.
    let grpc = if plan.pods.certificates.is_some() { "https" } else { "kubernetes.io/h2c" };
    Service {
        metadata: metadata(plan.model),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(names::selector(&plan.model.name_any())),
            // A worker is contacted before it is ready: the operator loads its adapters first, and its state stream
            // tells what it serves.
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![port("grpc", names::GRPC_PORT, grpc), port("probes", names::PROBES_PORT, "http")]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

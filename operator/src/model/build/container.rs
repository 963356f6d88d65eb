//! Container of a worker pod.

use std::{collections::BTreeMap, net::SocketAddr};

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, Probe, ResourceRequirements, SecurityContext,
        VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kube::ResourceExt as _;
use slm_crds::pod::PodSettings;
use slm_launch::{CacheArgs, PVC_ROOT, StoreArgs, WorkerLaunch};

use super::{
    Plan,
    deployment::{CACHE_VOLUME, CERTIFICATES_VOLUME, CLAIM_VOLUME, CREDENTIALS_VOLUME, TMP_VOLUME},
};
use crate::{names, source::claim_of};

const CACHE: &str = "/var/cache/slm-swarm";
const CREDENTIALS: &str = "/etc/slm-swarm/source";
const CERTIFICATES: &str = "/etc/slm-swarm/tls";

pub(super) fn build(plan: Plan<'_>, settings: &PodSettings) -> Container {
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number.into(),
        ..ContainerPort::default()
    };
    Container {
        name: "worker".to_owned(),
        image: Some(plan.profile.image.clone().unwrap_or_else(|| plan.pods.image.clone())),
        image_pull_policy: plan.pods.image_pull_policy.clone(),
        args: Some(arguments(plan)),
        env: Some(environment(plan)),
        ports: Some(vec![port("grpc", names::GRPC_PORT), port("probes", names::PROBES_PORT)]),
        resources: resources(plan, settings),
        // Converting a large model takes minutes. The worker itself reports progress, so only its liveness counts.
        startup_probe: Some(probe("/healthz", 1, 30)),
        readiness_probe: Some(probe("/readyz", 1, 1)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
            ..SecurityContext::default()
        }),
        // The worker's last log line is the reason why it could not start.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts(plan)),
        ..Container::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("probes".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn arguments(plan: Plan<'_>) -> Vec<String> {
    let spec = &plan.model.spec;
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let launch = WorkerLaunch {
        credentials: spec.source.secret_ref.as_ref().map(|_| CREDENTIALS.into()),
        execution_provider: plan.provider,
        store: StoreArgs {
            cache: CacheArgs { cache: Some(CACHE.into()) },
            artifacts_max: Some(plan.pods.artifacts_bytes_max),
            insecure_host: plan.pods.insecure_hosts.clone(),
            hub_endpoint: plan.pods.hub_endpoint.clone(),
            s3_endpoint: plan.pods.s3_endpoint.clone(),
            ..StoreArgs::default()
        },
        listen: any(names::GRPC_PORT),
        tls: plan.pods.certificates.map(|_| CERTIFICATES.into()),
        probes: Some(any(names::PROBES_PORT)),
        ..WorkerLaunch::of(plan.model.name_any(), spec)
    };
    // Every argument is ours or comes from JSON, so it is valid text.
    launch.to_args().into_iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

fn environment(plan: Plan<'_>) -> Vec<EnvVar> {
    let mut variables = plan.profile.env.clone();
    variables.entry("RUST_LOG".to_owned()).or_insert_with(|| plan.pods.log.clone());
    let variable = |(name, value)| EnvVar { name, value: Some(value), ..EnvVar::default() };
    variables.into_iter().map(variable).collect()
}

/// Resources of the model's spec, and the accelerator's device.
fn resources(plan: Plan<'_>, settings: &PodSettings) -> Option<ResourceRequirements> {
    let mut resources = settings.resources.clone().unwrap_or_default();
    if let Some(device) = &plan.profile.resource {
        // Extended resources are requested by their limit; Kubernetes sets the request.
        let limits = resources.limits.get_or_insert_with(BTreeMap::new);
        limits.insert(device.name.clone(), Quantity(device.count.to_string()));
    }
    Some(resources).filter(|resources| *resources != ResourceRequirements::default())
}

fn mounts(plan: Plan<'_>) -> Vec<VolumeMount> {
    let mount = |name: &str, path: String, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path,
        read_only: Some(read_only).filter(|read_only| *read_only),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount(CACHE_VOLUME, CACHE.to_owned(), false), mount(TMP_VOLUME, "/tmp".to_owned(), false)];
    let source = &plan.model.spec.source;
    if let Some(claim) = claim_of(&source.uri) {
        mounts.push(mount(CLAIM_VOLUME, format!("{PVC_ROOT}/{claim}"), true));
    }
    if source.secret_ref.is_some() {
        mounts.push(mount(CREDENTIALS_VOLUME, CREDENTIALS.to_owned(), true));
    }
    if plan.pods.certificates.is_some() {
        mounts.push(mount(CERTIFICATES_VOLUME, CERTIFICATES.to_owned(), true));
    }
    mounts
}

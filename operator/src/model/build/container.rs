//! The worker's container.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, Probe, ResourceRequirements, SecurityContext,
        VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kube::ResourceExt as _;
use slm_crds::{accelerator::ExecutionProvider, pod::PodSettings};

use super::{
    Plan,
    deployment::{CACHE_VOLUME, CERTIFICATES_VOLUME, CLAIM_VOLUME, CREDENTIALS_VOLUME, TMP_VOLUME},
};
use crate::{names, source::claim_of};

const CACHE: &str = "/var/cache/slm-swarm";
const CREDENTIALS: &str = "/etc/slm-swarm/source";
const CERTIFICATES: &str = "/etc/slm-swarm/tls";
/// Where a worker looks for claims; each under its own name.
const CLAIMS: &str = "/var/lib/slm-swarm/pvc";

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
        // Converting a large model takes minutes; what matters is that it goes on, which the process itself tells.
        startup_probe: Some(probe("/healthz", 1, 30)),
        readiness_probe: Some(probe("/readyz", 1, 1)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
            ..SecurityContext::default()
        }),
        // Why a worker could not start is the last thing that it writes.
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
    let mut arguments = vec!["worker".to_owned()];
    let mut flag = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
    flag("name", plan.model.name_any());
    flag("model", spec.source.uri.clone());
    if let Some(digest) = &spec.source.digest {
        flag("digest", digest.clone());
    }
    if spec.source.secret_ref.is_some() {
        flag("credentials", CREDENTIALS.to_owned());
    }
    if plan.pods.certificates.is_some() {
        flag("tls", CERTIFICATES.to_owned());
    }
    flag("listen", format!("0.0.0.0:{}", names::GRPC_PORT));
    flag("probes", format!("0.0.0.0:{}", names::PROBES_PORT));
    flag("cache", CACHE.to_owned());
    flag("artifacts-max", plan.pods.artifacts_bytes_max.to_string());
    flag("drain", format!("{}s", spec.rollout.drain_timeout_seconds));
    flag("precision", spec.runtime.precision.name().to_owned());
    flag("max-sequences", spec.runtime.max_sequences.to_string());
    flag("adapter-slots", spec.adapters.slots.to_string());
    flag("adapter-max-rank", spec.adapters.max_rank.to_string());
    if let Some(length) = spec.runtime.context_length {
        flag("context-length", length.to_string());
    }
    if let Some(bytes) = spec.runtime.kv_cache.bytes {
        flag("kv-cache-bytes", bytes.to_string());
    }
    flag("prefix-cache", spec.runtime.prefix_cache.to_string());
    flag("speculative", spec.runtime.speculative.method.name().to_owned());
    if let Some(threads) = spec.runtime.threads {
        flag("threads", threads.to_string());
    }
    for host in &plan.pods.insecure_hosts {
        flag("insecure-host", host.clone());
    }
    if plan.profile.execution_provider != ExecutionProvider::Cpu {
        flag("execution-provider", plan.profile.execution_provider.to_string());
    }
    for (name, value) in &plan.profile.provider_options {
        flag("provider-option", format!("{name}={value}"));
    }
    arguments
}

fn environment(plan: Plan<'_>) -> Vec<EnvVar> {
    let mut variables = plan.profile.env.clone();
    variables.entry("RUST_LOG".to_owned()).or_insert_with(|| plan.pods.log.clone());
    let variable = |(name, value)| EnvVar { name, value: Some(value), ..EnvVar::default() };
    variables.into_iter().map(variable).collect()
}

/// What the model asks for, and the accelerator's device.
fn resources(plan: Plan<'_>, settings: &PodSettings) -> Option<ResourceRequirements> {
    let mut resources = settings.resources.clone().unwrap_or_default();
    if let Some(device) = &plan.profile.resource {
        // Extended resources are asked for by their limit; the request follows.
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
        mounts.push(mount(CLAIM_VOLUME, format!("{CLAIMS}/{claim}"), true));
    }
    if source.secret_ref.is_some() {
        mounts.push(mount(CREDENTIALS_VOLUME, CREDENTIALS.to_owned(), true));
    }
    if plan.pods.certificates.is_some() {
        mounts.push(mount(CERTIFICATES_VOLUME, CERTIFICATES.to_owned(), true));
    }
    mounts
}

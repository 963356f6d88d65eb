//! Deployment of worker pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Affinity, EmptyDirVolumeSource, LocalObjectReference, PersistentVolumeClaimVolumeSource, PodAffinityTerm,
            PodAntiAffinity, PodReadinessGate, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile,
            SecretVolumeSource, Toleration, Volume, WeightedPodAffinityTerm,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt as _;

use slm_tls::Identity;

use super::{Plan, container, metadata};
use crate::{names, source::claim_of};

/// UID that our images run as.
const USER: i64 = 65532;
/// Time between the end of the last answer and the kill: enough to flush and exit.
const EXIT_SECONDS: u32 = 10;

pub(super) const CACHE_VOLUME: &str = "cache";
pub(super) const TMP_VOLUME: &str = "tmp";
pub(super) const CREDENTIALS_VOLUME: &str = "source-credentials";
pub(super) const CERTIFICATES_VOLUME: &str = "certificates";
pub(super) const CLAIM_VOLUME: &str = "source-claim";

pub(super) fn build(plan: Plan<'_>) -> Deployment {
    let (name, spec) = (plan.model.name_any(), &plan.model.spec);
    let rollout = &spec.rollout;
    Deployment {
        metadata: metadata(plan.model),
        spec: Some(DeploymentSpec {
            replicas: i32::try_from(spec.replicas).ok(),
            selector: LabelSelector { match_labels: Some(names::selector(&name)), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: i32::try_from(rollout.max_surge).ok().map(IntOrString::Int),
                    max_unavailable: i32::try_from(rollout.max_unavailable).ok().map(IntOrString::Int),
                }),
            }),
            // Kubernetes' default of ten minutes is short for a model of many gigabytes on a slow link.
            progress_deadline_seconds: Some(3600),
            revision_history_limit: Some(3),
            template: template(plan),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn template(plan: Plan<'_>) -> PodTemplateSpec {
    let name = plan.model.name_any();
    let settings = plan.model.spec.pod.clone().unwrap_or_default();
    let mut labels = settings.labels.clone();
    labels.extend(names::labels(&name));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: non_empty(settings.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(names::worker(&name)),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            readiness_gates: Some(vec![PodReadinessGate { condition_type: names::ADAPTERS_LOADED.to_owned() }]),
            termination_grace_period_seconds: Some(
                (plan.model.spec.rollout.drain_timeout_seconds + EXIT_SECONDS).into(),
            ),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                // Keeps the kubelet from walking a cache of many gigabytes at every start.
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            image_pull_secrets: pull_secrets(&plan.pods.image_pull_secrets),
            node_selector: node_selector(plan, &settings.node_selector),
            tolerations: tolerations(plan, &settings.tolerations),
            affinity: Some(settings.affinity.clone().unwrap_or_else(|| apart(&name))),
            topology_spread_constraints: Some(settings.topology_spread_constraints.clone())
                .filter(|constraints| !constraints.is_empty()),
            priority_class_name: settings.priority_class_name.clone(),
            containers: vec![container::build(plan, &settings)],
            volumes: Some(volumes(plan)),
            ..PodSpec::default()
        }),
    }
}

fn pull_secrets(names: &[String]) -> Option<Vec<LocalObjectReference>> {
    let secrets: Vec<_> = names.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    Some(secrets).filter(|secrets| !secrets.is_empty())
}

fn node_selector(plan: Plan<'_>, own: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let mut selector = own.clone();
    selector.extend(plan.profile.node_selector.clone());
    non_empty(selector)
}

fn tolerations(plan: Plan<'_>, own: &[Toleration]) -> Option<Vec<Toleration>> {
    let all: Vec<_> = own.iter().chain(&plan.profile.tolerations).cloned().collect();
    Some(all).filter(|all| !all.is_empty())
}

fn non_empty(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|map| !map.is_empty())
}

/// Spreads the workers of a model over nodes.
fn apart(name: &str) -> Affinity {
    let term = PodAffinityTerm {
        label_selector: Some(LabelSelector { match_labels: Some(names::selector(name)), ..LabelSelector::default() }),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                pod_affinity_term: term,
                weight: 100,
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn volumes(plan: Plan<'_>) -> Vec<Volume> {
    let named = |name: &str| Volume { name: name.to_owned(), ..Volume::default() };
    let empty = || Some(EmptyDirVolumeSource::default());
    let claim = |claim: &str, read_only| {
        Some(PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), read_only: Some(read_only) })
    };
    let cache = match &plan.pods.cache_claim {
        Some(name) => Volume { persistent_volume_claim: claim(name, false), ..named(CACHE_VOLUME) },
        None => Volume { empty_dir: empty(), ..named(CACHE_VOLUME) },
    };
    let mut volumes = vec![cache, Volume { empty_dir: empty(), ..named(TMP_VOLUME) }];
    let source = &plan.model.spec.source;
    if let Some(name) = claim_of(&source.uri) {
        volumes.push(Volume { persistent_volume_claim: claim(name, true), ..named(CLAIM_VOLUME) });
    }
    if let Some(secret) = &source.secret_ref {
        let secret = SecretVolumeSource { secret_name: Some(secret.name.clone()), ..SecretVolumeSource::default() };
        volumes.push(Volume { secret: Some(secret), ..named(CREDENTIALS_VOLUME) });
    }
    if plan.pods.certificates.is_some() {
        let secret = SecretVolumeSource {
            secret_name: Some(names::certificate(Identity::Worker)),
            // Readable by the pod's group, and by no one else.
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        };
        volumes.push(Volume { secret: Some(secret), ..named(CERTIFICATES_VOLUME) });
    }
    volumes
}

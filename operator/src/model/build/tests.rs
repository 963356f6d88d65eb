//! Tables from a field of the model to the field of the built object.

use std::time::Duration;

use serde_json::{Value, json};
use slm_crds::{AcceleratorProfileSpec, SlmModel};
use slm_launch::ExecutionProvider;

use super::{Plan, build};
use crate::config::{Certificates, WorkerPods};

fn pods() -> WorkerPods {
    WorkerPods {
        image: "slm-swarm:1".to_owned(),
        image_pull_policy: None,
        image_pull_secrets: Vec::new(),
        cache_claim: None,
        certificates: None,
        artifacts_bytes_max: 1 << 34,
        insecure_hosts: vec!["registry:5000".to_owned()],
        hub_endpoint: slm_launch::HUB_ENDPOINT.to_owned(),
        s3_endpoint: None,
        log: "info".to_owned(),
    }
}

fn built(spec: Value, profile: Value, pods: &WorkerPods) -> Value {
    let mut model: SlmModel = serde_json::from_value(json!({
        "apiVersion": "slmswarm.io/v1alpha1", "kind": "SlmModel",
        "metadata": { "name": "smol", "namespace": "swarm", "uid": "u-1" },
        "spec": { "source": { "uri": "oci://registry:5000/smol:1" } },
    }))
    .expect("a model");
    let mut whole = serde_json::to_value(&model.spec).expect("JSON");
    for (name, value) in spec.as_object().expect("an object") {
        whole[name] = value.clone();
    }
    model.spec = serde_json::from_value(whole).expect("a spec");
    let profile: AcceleratorProfileSpec = serde_json::from_value(profile).expect("a profile");
    let prepared = build(Plan { model: &model, profile: &profile, provider: ExecutionProvider::Cpu, pods });
    json!({
        "deployment": prepared.deployment,
        "service": prepared.service,
        "pdb": prepared.disruption_budget,
        "account": prepared.service_account,
    })
}

fn pod(built: &Value) -> &Value {
    &built["deployment"]["spec"]["template"]["spec"]
}

fn container(built: &Value) -> &Value {
    &pod(built)["containers"][0]
}

fn arguments(built: &Value) -> Vec<&str> {
    container(built)["args"].as_array().expect("arguments").iter().filter_map(Value::as_str).collect()
}

#[test]
fn everything_goes_with_its_model() {
    let built = built(json!({}), json!({ "executionProvider": "Cpu" }), &pods());
    for object in ["deployment", "service", "pdb", "account"] {
        let metadata = &built[object]["metadata"];
        assert_eq!(metadata["name"], "slm-worker-smol");
        assert_eq!(metadata["ownerReferences"][0]["uid"], "u-1", "{object}");
        assert_eq!(metadata["labels"]["slmswarm.io/model"], "smol", "{object}");
    }
}

#[test]
fn pods_satisfy_the_restricted_level() {
    let built = built(json!({}), json!({ "executionProvider": "Cpu" }), &pods());
    let (pod, container) = (pod(&built), container(&built));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(pod["volumes"].as_array().expect("volumes").iter().all(|volume| volume["hostPath"].is_null()));
}

#[test]
fn a_worker_gets_what_the_model_says() {
    let spec = json!({
        "replicas": 3,
        "task": "Embed",
        "runtime": { "precision": "Int4", "contextLength": 512, "maxSequences": 4, "threads": 2, "kvCache": { "bytes": 2_000_000 },
            "prefixCache": false, "speculative": { "method": "Off" } },
        "adapters": { "slots": 5, "maxRank": 8 },
        "rollout": { "maxSurge": 2, "maxUnavailable": 1, "drainTimeoutSeconds": 20 },
        "pod": { "resources": { "limits": { "memory": "2Gi", "cpu": "2" } }, "nodeSelector": { "a": "b" } },
    });
    let built = built(spec, json!({ "executionProvider": "Cpu" }), &pods());
    let arguments = arguments(&built);
    for argument in [
        "--name=smol",
        "--model=oci://registry:5000/smol:1",
        "--task=Embed",
        "--precision=Int4",
        "--context-length=512",
        "--max-sequences=4",
        "--threads=2",
        "--kv-cache-bytes=2000000",
        "--prefix-cache=false",
        "--speculative=Off",
        "--adapter-slots=5",
        "--adapter-max-rank=8",
        "--drain=20s",
        "--insecure-host=registry:5000",
    ] {
        assert!(arguments.contains(&argument), "{argument} in {arguments:?}");
    }
    let deployment = &built["deployment"]["spec"];
    assert_eq!(deployment["replicas"], 3);
    assert_eq!(deployment["strategy"]["rollingUpdate"], json!({ "maxSurge": 2, "maxUnavailable": 1 }));
    assert_eq!(pod(&built)["terminationGracePeriodSeconds"], 30);
    assert_eq!(pod(&built)["nodeSelector"], json!({ "a": "b" }));
    assert_eq!(container(&built)["resources"]["limits"], json!({ "memory": "2Gi", "cpu": "2" }));
}

#[test]
fn an_accelerator_brings_its_device_and_image() {
    let profile = json!({
        "executionProvider": "Cpu",
        "image": "slm-swarm-cuda:1",
        "resource": { "name": "nvidia.com/gpu" },
        "env": { "NVIDIA_DRIVER_CAPABILITIES": "compute" },
        "tolerations": [{ "key": "nvidia.com/gpu", "operator": "Exists" }],
    });
    let built = built(json!({ "pod": { "resources": { "requests": { "cpu": "1" } } } }), profile, &pods());
    assert_eq!(container(&built)["image"], "slm-swarm-cuda:1");
    let resources = &container(&built)["resources"];
    assert_eq!((&resources["limits"]["nvidia.com/gpu"], &resources["requests"]["cpu"]), (&json!("1"), &json!("1")));
    assert!(arguments(&built).contains(&"--execution-provider=Cpu"));
    assert_eq!(pod(&built)["tolerations"][0]["key"], "nvidia.com/gpu");
    assert_eq!(container(&built)["env"][0]["name"], "NVIDIA_DRIVER_CAPABILITIES");
}

#[test]
fn claims_and_secrets_are_mounted() {
    let pods = WorkerPods { cache_claim: Some("node-cache".to_owned()), ..pods() };
    let source = json!({ "source": { "uri": "pvc://models/smol.gguf", "secretRef": { "name": "pull" } } });
    let built = built(source, json!({ "executionProvider": "Cpu" }), &pods);
    let volumes = pod(&built)["volumes"].to_string();
    assert!(
        volumes.contains("\"claimName\":\"node-cache\"") && volumes.contains("\"secretName\":\"pull\""),
        "{volumes}"
    );
    let mounts = container(&built)["volumeMounts"].to_string();
    assert!(mounts.contains("/var/lib/slm-swarm/pvc/models") && mounts.contains("/etc/slm-swarm/source"), "{mounts}");
}

#[test]
fn a_worker_gets_its_certificates() {
    let cpu = || json!({ "executionProvider": "Cpu" });
    let hour = Duration::from_secs(3_600);
    let certificates = Certificates { lifetime: hour, authority_lifetime: hour * 24, propagation: hour / 60 };
    let built_with = built(json!({}), cpu(), &WorkerPods { certificates: Some(certificates), ..pods() });
    assert!(arguments(&built_with).contains(&"--tls=/etc/slm-swarm/tls"));
    let volumes = pod(&built_with)["volumes"].to_string();
    assert!(volumes.contains(r#""secret":{"defaultMode":288,"secretName":"slm-swarm-worker-tls"}"#), "{volumes}");
    assert_eq!(built_with["service"]["spec"]["ports"][0]["appProtocol"], "https");

    let plain = built(json!({}), cpu(), &pods());
    assert!(!plain.to_string().contains("tls"), "{plain}");
}

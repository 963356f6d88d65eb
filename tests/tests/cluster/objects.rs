//! Objects that take a name away, that nobody can read, or whose pods nobody may create.

use std::sync::Mutex;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use slm_tests::cluster::{
    MODEL, adapter_manifest, apply, client, kubectl, kubectl_json, push_adapter, until, until_reason, variable,
    wait_ready,
};
use slm_tests::swarm::{Call, quickstart_adapter};

const CREATED: &str = "jsonpath={.metadata.creationTimestamp}";

/// A route of the model's name comes later: the model keeps it, in the status and at the routers. When the holder of a
/// name goes, the object that waited for it has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_the_older_objects_until_it_goes() -> Result<()> {
    wait_ready()?;
    let route = |name: &str| {
        format!(
            "apiVersion: slmswarm.io/v1alpha1\nkind: SwarmRoute\nmetadata: {{name: {name}}}\nspec:\n  \
             fallback: {{kind: SlmModel, name: {MODEL}}}\n"
        )
    };
    apply(&route(MODEL))?;
    let message = until_reason("sroute", MODEL, "NameTaken").await?;
    assert!(message.contains("SlmModel"), "{message}");
    let answer = client()?.ask(&Call::new(MODEL, "Once upon a time")).await.context("the model answers to its name")?;
    assert_eq!(answer.expert.name, MODEL);
    kubectl(&["delete", "sroute", MODEL])?;

    apply(&route("contested"))?;
    until_reason("sroute", "contested", "Ready").await?;
    // Of two objects of one second, the kind decides.
    let made = kubectl(&["get", "sroute", "contested", "-o", CREATED])?;
    let now = ["create", "configmap", "now", "--dry-run=server", "-o", CREATED];
    until("the next second", || Ok((kubectl(&now)? != made).then_some(()))).await?;
    let uri = push_adapter(&quickstart_adapter("banking"), "contested:1")?;
    apply(&adapter_manifest("contested", &uri))?;
    until_reason("lora", "contested", "NameTaken").await?;
    kubectl(&["delete", "sroute", "contested"])?;
    until_reason("lora", "contested", "Ready").await?;
    kubectl(&["delete", "lora", "contested"])?;
    Ok(())
}

/// A kind of object as the CRD of a newer release takes it and this operator does not.
struct Newer {
    plural: &'static str,
    /// Of a field under `spec` in the schema, and what it becomes.
    field: &'static str,
    schema: Value,
    /// An object of that name.
    name: &'static str,
    spec: Value,
    /// What of it the operator cannot read.
    says: &'static str,
}

impl Newer {
    fn crd(&self) -> String {
        format!("{}.slmswarm.io", self.plural)
    }

    /// The field's place in the CRD.
    fn path(&self) -> String {
        format!("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{}", self.field)
    }

    fn set(&self, schema: &Value) -> Result<()> {
        let replace = json!([{ "op": "replace", "path": self.path(), "value": schema }]).to_string();
        kubectl(&["patch", "crd", &self.crd(), "--type=json", "--patch", &replace]).map(drop)
    }

    fn manifest(&self, kind: &str) -> String {
        json!({ "apiVersion": "slmswarm.io/v1alpha1", "kind": kind, "metadata": { "name": self.name }, "spec": self.spec })
            .to_string()
    }
}

/// One of each kind.
fn newer(base: &str, adapter: &str) -> [(&'static str, Newer); 4] {
    let text = || json!({ "type": "string" });
    [
        (
            "AcceleratorProfile",
            Newer {
                plural: "acceleratorprofiles",
                field: "executionProvider",
                schema: text(),
                name: "newer-profile",
                spec: json!({ "executionProvider": "Rocm" }),
                says: "Rocm",
            },
        ),
        (
            "SlmModel",
            Newer {
                plural: "slmmodels",
                field: "runtime/properties/precision",
                schema: text(),
                name: "newer-model",
                spec: json!({ "source": { "uri": base }, "runtime": { "precision": "Int2" } }),
                says: "Int2",
            },
        ),
        (
            "LoraAdapter",
            Newer {
                plural: "loraadapters",
                field: "scale",
                schema: text(),
                name: "newer-adapter",
                spec: json!({ "modelRef": { "name": MODEL }, "source": { "uri": adapter }, "scale": "by-layer" }),
                says: "by-layer",
            },
        ),
        (
            "SwarmRoute",
            Newer {
                plural: "swarmroutes",
                field: "fallback",
                schema: json!({ "type": "object", "properties": { "kind": text(), "name": text() } }),
                name: "newer-route",
                spec: json!({ "fallback": { "kind": "Ensemble", "name": "all" } }),
                says: "Ensemble",
            },
        ),
    ]
}

/// The CRDs of a newer release know values that this operator does not: an object of each kind with one is named, hides no
/// other, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_a_newer_release_hides_no_other() -> Result<()> {
    wait_ready()?;
    let registry = variable("SLM_REGISTRY_NAME")?;
    let base = format!("oci://{registry}/smollm2:1");
    let adapter = push_adapter(&quickstart_adapter("banking"), "beside:1")?;
    let all = newer(&base, &adapter);
    let before = all.iter().map(|(_, newer)| {
        let crd = kubectl_json(&["get", "crd", &newer.crd()])?;
        crd.pointer(&newer.path()).cloned().with_context(|| format!("{} of {}", newer.path(), newer.crd()))
    });
    let before = before.collect::<Result<Vec<_>>>()?;
    for (kind, newer) in &all {
        newer.set(&newer.schema)?;
        // The API server takes up the new schema in its own time.
        let last = Mutex::new(String::new());
        let applied = until("the API server to take the object", || {
            Ok(apply(&newer.manifest(kind)).map_err(|error| *last.lock().unwrap() = format!("{error:#}")).ok())
        });
        applied.await.with_context(|| last.lock().unwrap().clone())?;
        if *kind != "AcceleratorProfile" {
            let message = until_reason(&newer.crd(), newer.name, "Undecodable").await?;
            assert!(message.contains(newer.says), "{message}");
        }
    }
    // What refers to one of them says why it waits.
    apply(&format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: on-newer}}\nspec:\n  \
         source: {{uri: '{base}'}}\n  runtime: {{accelerator: newer-profile}}\n---\n\
         apiVersion: slmswarm.io/v1alpha1\nkind: SwarmRoute\nmetadata: {{name: to-newer}}\nspec:\n  \
         fallback: {{kind: LoraAdapter, name: newer-adapter}}\n"
    ))?;
    let message = until_reason("slm", "on-newer", "AcceleratorProfileUndecodable").await?;
    assert!(message.contains("Rocm"), "{message}");
    let message = until_reason("sroute", "to-newer", "TargetNotFound").await?;
    assert!(message.contains("cannot read the LoraAdapter `newer-adapter`"), "{message}");
    // Everything else goes on.
    apply(&adapter_manifest("beside", &adapter))?;
    until_reason("lora", "beside", "Ready").await?;
    let answer = client()?.ask(&Call::new("beside", "What is my balance?")).await.context("the new adapter answers")?;
    assert_eq!(answer.expert.name, "beside");

    kubectl(&["delete", "lora/beside", "slm/on-newer", "sroute/to-newer"])?;
    for ((_, newer), schema) in all.iter().zip(&before) {
        kubectl(&["delete", &newer.crd(), newer.name])?;
        newer.set(schema)?;
    }
    wait_ready()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_refuses_pods_is_said() -> Result<()> {
    wait_ready()?;
    let registry = variable("SLM_REGISTRY_NAME")?;
    let pods = kubectl_json(&["get", "pods"])?["items"].as_array().map_or(0, Vec::len);
    apply(&format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: no-more}}\nspec: {{hard: {{pods: '{pods}'}}}}\n---\n\
         apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: refused}}\nspec:\n  \
         source: {{uri: 'oci://{registry}/smollm2:1'}}\n"
    ))?;
    let message = until_reason("slm", "refused", "FailedCreate").await?;
    assert!(message.contains("exceeded quota"), "{message}");
    kubectl(&["delete", "slm/refused", "quota/no-more"])?;
    Ok(())
}

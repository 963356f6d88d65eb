//! Objects that take a name away, that nobody can read, or whose pods nobody may create.

use anyhow::{Context as _, Result};
use serde_json::json;
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

/// The CRD of a newer release knows a precision that this operator does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_a_newer_release_hides_no_other() -> Result<()> {
    const CRD: &str = "slmmodels.slmswarm.io";
    const VALUES: &str =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/runtime/properties/precision/enum";
    wait_ready()?;
    let add = json!([{ "op": "add", "path": format!("{VALUES}/-"), "value": "Int2" }]).to_string();
    kubectl(&["patch", "crd", CRD, "--type=json", "--patch", &add])?;
    let registry = variable("SLM_REGISTRY_NAME")?;
    let manifest = format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: newer}}\nspec:\n  \
         source: {{uri: 'oci://{registry}/smollm2:1'}}\n  runtime: {{precision: Int2}}\n"
    );
    // The API server takes up the new schema in its own time.
    until("the API server to take the object", || Ok(apply(&manifest).ok())).await?;
    let message = until_reason("slm", "newer", "Undecodable").await?;
    assert!(message.contains("Int2"), "{message}");

    let uri = push_adapter(&quickstart_adapter("banking"), "beside:1")?;
    apply(&adapter_manifest("beside", &uri))?;
    until_reason("lora", "beside", "Ready").await?;
    kubectl(&["delete", "lora/beside", "slm/newer"])?;
    let test = json!([{ "op": "remove", "path": format!("{VALUES}/4") }]).to_string();
    kubectl(&["patch", "crd", CRD, "--type=json", "--patch", &test])?;
    Ok(())
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

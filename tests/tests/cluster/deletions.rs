//! What is deleted while something else needs it: said where it is missed, and mended when it is back.

use anyhow::Result;
use slm_tests::{
    cluster::{adapter_manifest, apply, client, kubectl, push_adapter, until, until_reason, variable, wait_ready},
    swarm::{Call, quickstart_adapter},
};

fn model(name: &str) -> Result<String> {
    let registry = variable("SLM_REGISTRY_NAME")?;
    Ok(format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: {name}}}\nspec:\n  \
         source: {{uri: 'oci://{registry}/smollm2:1'}}\n  runtime: {{contextLength: 256}}\n"
    ))
}

const ROUTE: &str = "apiVersion: slmswarm.io/v1alpha1
kind: SwarmRoute
metadata: {name: spare-route}
spec:
  rules:
    - when: text.contains('soup')
      to: {kind: LoraAdapter, name: spare-kitchen}
  fallback: {kind: SlmModel, name: spare}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_in_use_is_missed_by_name() -> Result<()> {
    wait_ready()?;
    let uri = push_adapter(&quickstart_adapter("kitchen"), "spare-kitchen:1")?;
    let adapter = adapter_manifest("spare-kitchen", &uri).replace("{name: smollm2}", "{name: spare}");
    apply(&model("spare")?)?;
    apply(&adapter)?;
    apply(ROUTE)?;
    wait_ready()?;
    let client = client()?;
    let soup = Call::new("spare-route", "find me a good recipe for onion soup");
    assert_eq!(client.ask(&soup).await?.expert.name, "spare-kitchen");

    // An adapter in a route: its rule is passed over.
    kubectl(&["delete", "lora", "spare-kitchen"])?;
    let message = until_reason("sroute", "spare-route", "TargetNotFound").await?;
    assert!(message.contains("spare-kitchen"), "{message}");
    client.until("spare-kitchen", |found| found.is_none()).await?;
    assert_eq!(client.ask(&soup).await?.expert.name, "spare");
    apply(&adapter)?;
    until_reason("lora", "spare-kitchen", "Ready").await?;
    until_reason("sroute", "spare-route", "Ready").await?;

    // A base that has an adapter, and is a route's fallback.
    kubectl(&["delete", "slm", "spare"])?;
    let message = until_reason("lora", "spare-kitchen", "ModelNotFound").await?;
    assert!(message.contains("spare"), "{message}");
    until_reason("sroute", "spare-route", "TargetNotFound").await?;
    until("its workers to be gone", || {
        Ok((kubectl(&["get", "pods", "-l", "slmswarm.io/model=spare", "-o", "name"])?.is_empty()).then_some(()))
    })
    .await?;
    assert!(client.ask(&Call::new("spare-kitchen", "soup")).await.is_err());
    apply(&model("spare")?)?;
    until_reason("lora", "spare-kitchen", "Ready").await?;
    until_reason("slm", "spare", "Ready").await?;

    // A route in use.
    kubectl(&["delete", "sroute", "spare-route"])?;
    client.until("spare-route", |found| found.is_none()).await?;
    kubectl(&["delete", "lora/spare-kitchen", "slm/spare"])?;
    wait_ready()
}

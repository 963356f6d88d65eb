//! Adapters on some workers of their base, and more adapters than slots.

use anyhow::{Result, ensure};
use slm_tests::{
    cluster::{
        adapter_manifest, apply, client, instances, kubectl, push_adapter, until, until_reason, variable, wait_ready,
    },
    swarm::{Call, quickstart_adapter},
};

/// The workers that serve `adapter`.
fn pods(adapter: &str) -> Result<Vec<String>> {
    Ok(instances(adapter)?.into_keys().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_is_on_as_many_workers_as_it_says() -> Result<()> {
    wait_ready()?;
    let uri = push_adapter(&quickstart_adapter("kitchen"), "placed:1")?;
    let everywhere = adapter_manifest("placed", &uri);
    let once = everywhere.replace("spec:", "spec:\n  placement: {replicas: 1}");
    ensure!(once != everywhere, "{everywhere}");
    apply(&once)?;
    until_reason("lora", "placed", "Ready").await?;
    let first = pods("placed")?;
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(kubectl(&["get", "lora", "placed", "-o", "jsonpath={.status.loaded}"])?, "1/1");
    let client = client()?;
    client.until("placed", |found| found.is_some_and(|found| found.ready)).await?;
    let call = Call::new("placed", "find me a good recipe for onion soup");
    for _ in 0..4 {
        assert_eq!(client.ask(&call).await?.expert.name, "placed");
    }

    // On all of them, and back on the one.
    apply(&everywhere)?;
    until("both workers to have it", || Ok((pods("placed")?.len() == 2).then_some(()))).await?;
    apply(&once)?;
    until("one worker to have it", || Ok((pods("placed")? == first).then_some(()))).await?;
    assert_eq!(client.ask(&call).await?.expert.name, "placed");
    kubectl(&["delete", "lora", "placed"])?;
    wait_ready()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_adapters_than_slots_answer() -> Result<()> {
    wait_ready()?;
    let registry = variable("SLM_REGISTRY_NAME")?;
    apply(&format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: narrow}}\nspec:\n  source: {{uri: 'oci://{registry}/smollm2:1'}}\n  \
         runtime: {{contextLength: 256, maxSequences: 4}}\n  adapters: {{slots: 1, hostCacheBytes: 0}}\n"
    ))?;
    let names = ["narrow-banking", "narrow-travel", "narrow-kitchen"];
    for name in names {
        let uri = push_adapter(&quickstart_adapter(name.trim_start_matches("narrow-")), &format!("{name}:1"))?;
        apply(&adapter_manifest(name, &uri).replace("{name: smollm2}", "{name: narrow}"))?;
    }
    wait_ready()?;
    let client = client()?;
    for round in 0..9 {
        let name = names[round % names.len()];
        client.until(name, |found| found.is_some_and(|found| found.ready)).await?;
        let answer = client.ask(&Call::continuing(name, "book me a flight from lisbon to oslo", 8)).await?;
        assert_eq!((answer.expert.name.as_str(), answer.tokens), (name, 8));
    }
    kubectl(&["delete", "lora/narrow-banking", "lora/narrow-travel", "lora/narrow-kitchen", "slm/narrow"])?;
    wait_ready()
}

//! Artifacts that are wrong, or cannot be had: said on the object, and what served serves on.

use std::fs;

use anyhow::Result;
use slm_tests::{
    cluster::{
        adapter_manifest, apply, client, cluster, instances, kubectl, push_adapter, until_reason, variable, wait_ready,
    },
    swarm::{Call, quickstart_adapter},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_version_is_refused_and_the_old_one_serves_on() -> Result<()> {
    wait_ready()?;
    let good = push_adapter(&quickstart_adapter("kitchen"), "mended:1")?;
    apply(&adapter_manifest("mended", &good))?;
    wait_ready()?;
    let before = instances("mended")?;

    // Cut in half.
    let folder = tempfile::tempdir()?;
    let source = quickstart_adapter("kitchen");
    fs::copy(source.join("adapter_config.json"), folder.path().join("adapter_config.json"))?;
    let weights = fs::read(source.join("adapter_model.safetensors"))?;
    fs::write(folder.path().join("adapter_model.safetensors"), &weights[..weights.len() / 2])?;
    let bad = push_adapter(folder.path(), "mended:2")?;
    apply(&adapter_manifest("mended", &bad))?;
    let message = until_reason("lora", "mended", "InvalidAdapter").await?;
    assert!(message.contains("adapter_model.safetensors"), "{message}");
    assert_eq!(instances("mended")?, before);

    // A tag that does not exist.
    let registry = variable("SLM_REGISTRY_NAME")?;
    apply(&adapter_manifest("mended", &format!("oci://{registry}/mended:nowhere")))?;
    let message = until_reason("lora", "mended", "NotFound").await?;
    assert!(message.contains("mended:nowhere"), "{message}");

    // Another digest than the manifest says.
    let digest = format!("sha256:{}", "0".repeat(64));
    let pinned = adapter_manifest("mended", &good).replace("'}", &format!("', digest: '{digest}'}}"));
    apply(&pinned)?;
    until_reason("lora", "mended", "NotFound").await?;

    let answer = client()?.ask(&Call::new("mended", "find me a good recipe for onion soup")).await?;
    assert_eq!(answer.text.trim(), "recipe");
    kubectl(&["delete", "lora", "mended"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_is_said_and_waited_for() -> Result<()> {
    wait_ready()?;
    let uri = push_adapter(&quickstart_adapter("kitchen"), "waiting:1")?;
    cluster(&["registry", "stop"])?;
    apply(&adapter_manifest("waiting", &uri))?;
    let message = until_reason("lora", "waiting", "Unreachable").await;
    cluster(&["registry", "start"])?;
    assert!(message?.contains("waiting:1"));
    // It comes by itself.
    until_reason("lora", "waiting", "Ready").await?;
    kubectl(&["delete", "lora", "waiting"])?;
    Ok(())
}

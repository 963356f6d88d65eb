//! What kubectl shows a person: what is going on, and what to do.

use anyhow::Result;
use slm_tests::{
    cluster::{adapter_manifest, apply, kubectl, push_adapter, until, until_reason, variable, wait_ready},
    swarm::quickstart_adapter,
};

/// The line of `kubectl get` for an object.
fn line(kind: &str, name: &str) -> Result<String> {
    kubectl(&["get", kind, name, "--no-headers"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_look_tells_what_serves() -> Result<()> {
    wait_ready()?;
    let table = kubectl(&["get", "slm,lora,sroute"])?;
    for name in ["smollm2", "banking", "travel", "kitchen", "assistant"] {
        let row = table.lines().find(|row| row.contains(&format!("/{name} "))).unwrap_or_default();
        assert!(row.contains("True"), "{name} in {table}");
    }
    // How many of its workers have it.
    assert!(line("lora", "banking")?.contains("2/2"), "{table}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_in_the_table_and_described() -> Result<()> {
    wait_ready()?;
    let registry = variable("SLM_REGISTRY_NAME")?;
    let uri = push_adapter(&quickstart_adapter("kitchen"), "people:1")?;
    let manifests = [
        adapter_manifest("of-nothing", &uri).replace("{name: smollm2}", "{name: smollm}"),
        adapter_manifest("not-there", &format!("oci://{registry}/nothing:1")),
        "apiVersion: slmswarm.io/v1alpha1\nkind: SwarmRoute\nmetadata: {name: to-nowhere}\n\
         spec: {fallback: {kind: LoraAdapter, name: bankin}}\n"
            .to_owned(),
    ];
    for manifest in &manifests {
        apply(manifest)?;
    }
    let expected = [
        ("lora", "of-nothing", "ModelNotFound", "smollm2"),
        ("lora", "not-there", "NotFound", "nothing:1"),
        ("sroute", "to-nowhere", "TargetNotFound", "banking"),
    ];
    for (kind, name, reason, says) in expected {
        let message = until_reason(kind, name, reason).await?;
        assert!(message.contains(says), "{name}: {message}");
        let row = line(kind, name)?;
        assert!(row.contains("False") && row.contains(reason), "{row}");
        // The condition, and the Event of it.
        until(&format!("{name} described with its Event"), || {
            let described = kubectl(&["describe", kind, name])?;
            let events = described.split("Events:").nth(1).unwrap_or_default();
            Ok((events.contains("Warning") && events.contains(reason) && events.contains(says)).then_some(()))
        })
        .await?;
        kubectl(&["delete", kind, name])?;
    }
    Ok(())
}

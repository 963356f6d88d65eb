//! Accelerators: scheduled onto the node that has the device, with what the profile says; and what no worker can run.

use anyhow::Result;
use slm_tests::cluster::{apply, cluster, kubectl, kubectl_json, pods, until, until_reason, variable, wait_ready};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_for_an_accelerator_goes_where_the_device_is() -> Result<()> {
    wait_ready()?;
    let registry = variable("SLM_REGISTRY_NAME")?;
    apply(&format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: AcceleratorProfile\nmetadata: {{name: with-device}}\nspec:\n  \
         executionProvider: Cpu\n  resource: {{name: nvidia.com/gpu}}\n  env: {{A: b}}\n---\n\
         apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: accelerated}}\nspec:\n  \
         source: {{uri: 'oci://{registry}/smollm2:1'}}\n  runtime: {{accelerator: with-device}}\n"
    ))?;
    let message = until_reason("slm", "accelerated", "Unschedulable").await?;
    assert!(message.contains("nvidia.com/gpu"), "{message}");

    cluster(&["device", "start", "nvidia.com/gpu=node1:1"])?;
    let pod = until("the pod on the node with the device", || {
        let found = pods("slmswarm.io/model=accelerated")?.into_iter().find(|pod| !pod.node.is_empty());
        Ok(found)
    })
    .await?;
    assert_eq!(pod.node, "node1");
    let spec = kubectl_json(&["get", "pod", &pod.name])?["spec"]["containers"][0].clone();
    assert_eq!(spec["resources"]["limits"]["nvidia.com/gpu"], "1");
    assert_eq!(spec["env"][0]["name"], "A");
    // It serves: every flag that it was given is one that it has.
    until_reason("slm", "accelerated", "Ready").await?;
    kubectl(&["delete", "slm/accelerated", "accel/with-device"])?;
    cluster(&["device", "stop", "nvidia.com/gpu=node1:1"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_no_worker_has_starts_no_pod() -> Result<()> {
    let registry = variable("SLM_REGISTRY_NAME")?;
    apply(&format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: on-tensorrt}}\nspec:\n  \
         source: {{uri: 'oci://{registry}/smollm2:1'}}\n  runtime: {{accelerator: nvidia-tensorrt}}\n"
    ))?;
    let message = until_reason("slm", "on-tensorrt", "ExecutionProviderUnsupported").await?;
    assert!(message.contains("TensorRt") && message.contains("nvidia-tensorrt"), "{message}");
    let deployments = kubectl_json(&["get", "deployments", "-l", "slmswarm.io/model=on-tensorrt"])?;
    assert_eq!(deployments["items"].as_array().map(Vec::len), Some(0));
    kubectl(&["delete", "slm", "on-tensorrt"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accelerator_that_nobody_knows_is_named() -> Result<()> {
    let registry = variable("SLM_REGISTRY_NAME")?;
    apply(&format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: misspelt}}\nspec:\n  \
         source: {{uri: 'oci://{registry}/smollm2:1'}}\n  runtime: {{accelerator: nvidia-tensort}}\n"
    ))?;
    let message = until_reason("slm", "misspelt", "AcceleratorProfileNotFound").await?;
    assert!(message.contains("did you mean `nvidia-tensorrt`"), "{message}");
    kubectl(&["delete", "slm", "misspelt"])?;
    Ok(())
}

//! Accelerators: scheduled onto the node that has the device, with what the profile says; and what no worker can run.

use anyhow::Result;
use slm_tests::{
    cluster::{apply, client, cluster, kubectl, kubectl_json, pods, until, until_reason, variable, wait_ready},
    swarm::Call,
};

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

/// The chart's profile, with the image that has OpenVINO.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openvino_serves_on_a_node() -> Result<()> {
    const LABELS: [(&str, &str, &str); 3] = [
        ("banking", "what's the routing number of my bank", "routing"),
        ("travel", "what plug type do they use in denmark", "plug_type"),
        ("kitchen", "find me a good recipe for onion soup", "recipe"),
    ];
    wait_ready()?;
    let registry = variable("SLM_REGISTRY_NAME")?;
    apply(&format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: on-openvino}}\nspec:\n  \
         source: {{uri: 'oci://{registry}/smollm2:1'}}\n  \
         runtime: {{accelerator: intel-openvino-cpu, precision: Int8, contextLength: 256, maxSequences: 4}}\n"
    ))?;
    for (name, ..) in LABELS {
        apply(&format!(
            "apiVersion: slmswarm.io/v1alpha1\nkind: LoraAdapter\nmetadata: {{name: {name}-on-openvino}}\nspec:\n  \
             modelRef: {{name: on-openvino}}\n  source: {{uri: 'oci://{registry}/{name}:1'}}\n"
        ))?;
    }
    until_reason("slm", "on-openvino", "Ready").await?;
    let status = kubectl_json(&["get", "slm", "on-openvino"])?["status"].clone();
    assert_eq!((&status["executionProvider"], &status["flavour"]), (&"OpenVino".into(), &"delta-Int8-F32".into()));
    let pod = pods("slmswarm.io/model=on-openvino")?.into_iter().next().expect("a pod");
    let image = kubectl_json(&["get", "pod", &pod.name])?["spec"]["containers"][0]["image"].clone();
    assert!(image.as_str().is_some_and(|image| image.contains("slm-swarm-worker-openvino")), "{image}");

    let client = client()?;
    for (name, prompt, label) in LABELS {
        let expert = format!("{name}-on-openvino");
        until_reason("lora", &expert, "Ready").await?;
        client.until(&expert, |model| model.is_some_and(|model| model.ready)).await?;
        let answer = client.ask(&Call::new(&expert, prompt)).await?;
        assert_eq!((answer.expert.name.as_str(), answer.text.trim()), (expert.as_str(), label));
    }
    let gone = LABELS.map(|(name, ..)| format!("lora/{name}-on-openvino"));
    kubectl(&["delete", "slm/on-openvino", &gone[0], &gone[1], &gone[2]])?;
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

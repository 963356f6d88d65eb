//! A second swarm in the cluster: its base model lies on a claim, and its workers share a cache.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use slm_tests::{
    cluster::{apply_in, helm, kubectl, kubectl_json, push_adapter, variable},
    swarm::{Call, Client, quickstart_adapter, repository},
};

const NAMESPACE: &str = "second";
const MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// A folder of this machine, which is every node's, as a claim that all may write.
fn claim(name: &str, folder: &Path) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: second-{name}}}\nspec:\n  \
           capacity: {{storage: 1Gi}}\n  accessModes: [ReadWriteMany]\n  storageClassName: ''\n  \
           hostPath: {{path: {}}}\n  claimRef: {{namespace: {NAMESPACE}, name: {name}}}\n---\n\
         apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  \
           accessModes: [ReadWriteMany]\n  storageClassName: ''\n  volumeName: second-{name}\n  \
           resources: {{requests: {{storage: 1Gi}}}}\n---\n",
        folder.display()
    )
}

fn manifests(adapter: &str) -> String {
    format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {{name: base}}\nspec:\n  replicas: 2\n  \
           source: {{uri: 'pvc://models/{MODEL_FILE}'}}\n  runtime: {{precision: F32, contextLength: 256}}\n---\n\
         apiVersion: slmswarm.io/v1alpha1\nkind: LoraAdapter\nmetadata: {{name: bank}}\nspec:\n  \
           modelRef: {{name: base}}\n  source: {{uri: '{adapter}'}}\n"
    )
}

/// Folders in a part of the cache whose name has a digest in it.
fn cached(cache: &Path, part: &str) -> Result<usize> {
    let entries = fs::read_dir(cache.join(part)).with_context(|| part.to_owned())?.flatten();
    let digest = |name: &str| name.split('-').any(|word| word.len() == 64);
    Ok(entries.filter(|entry| entry.path().is_dir() && digest(&entry.file_name().to_string_lossy())).count())
}

async fn serves(models: &Path, cache: &Path) -> Result<()> {
    apply_in(NAMESPACE, &(claim("models", models) + &claim("cache", cache)))?;
    let hosts = format!("worker.insecureHosts={{{}}}", variable("SLM_REGISTRY_NAME")?);
    let values = [
        "worker.cache.claimName=cache",
        "acceleratorProfiles.create=false",
        "operator.replicas=1",
        "router.replicas=1",
        hosts.as_str(),
    ];
    let sets: Vec<_> = values.into_iter().flat_map(|value| ["--set", value]).collect();
    let install = ["install", "second", "charts/slm-swarm", "-n", NAMESPACE, "--wait", "--timeout=120s"];
    helm(&[&install, &sets[..]].concat())?;
    let adapter = push_adapter(&quickstart_adapter("banking"), "second-bank:1")?;
    apply_in(NAMESPACE, &manifests(&adapter))?;
    kubectl(&["-n", NAMESPACE, "wait", "--for=condition=Ready", "slm,lora", "--all", "--timeout=180s"])?;
    let service = kubectl_json(&["-n", NAMESPACE, "get", "service", "second-slm-swarm-router"])?;
    let ip = service["spec"]["clusterIP"].as_str().context("clusterIP")?.to_owned();
    let client = Client::new(&format!("http://{ip}:50051"))?;
    for _ in 0..4 {
        let answer = client.ask(&Call::new("bank", "put a freeze on my bank account right now")).await?;
        assert_eq!(answer.text.trim(), "freeze_account");
    }
    // Two workers, and each thing once: the converted model, and the adapter.
    assert_eq!((cached(cache, "converted")?, cached(cache, "artifacts")?), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_swarm_reads_a_claim_and_shares_a_cache() -> Result<()> {
    let (models, cache) = (tempfile::tempdir_in("/var/tmp")?, tempfile::tempdir_in("/var/tmp")?);
    for folder in [&models, &cache] {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    }
    fs::copy(repository().join("examples/quickstart/models").join(MODEL_FILE), models.path().join(MODEL_FILE))?;
    kubectl(&["create", "namespace", NAMESPACE])?;
    kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted"])?;
    let served = serves(models.path(), cache.path()).await;
    kubectl(&["-n", NAMESPACE, "delete", "slm,lora", "--all"])?;
    helm(&["uninstall", "second", "-n", NAMESPACE, "--ignore-not-found", "--wait"])?;
    kubectl(&["delete", "namespace", NAMESPACE, "--timeout=120s"])?;
    kubectl(&["delete", "pv", "second-models", "second-cache"])?;
    served
}

//! A second swarm in the cluster: its base model lies on a claim, its workers share a cache, and callers need a token.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use slm_tests::{
    cluster::{apply_in, helm, kubectl, kubectl_json, push_adapter, until, variable},
    swarm::{Ended, quickstart_adapter, repository, run, slm},
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

/// `slm` outside of the cluster, at the endpoint of the second swarm.
struct Caller<'t> {
    address: String,
    certificate: &'t Path,
}

impl Caller<'_> {
    fn slm(&self, token: &str, arguments: &[&str]) -> Result<Ended> {
        let mut command = slm(arguments)?;
        command.env("SLM_SERVER", &self.address).env("SLM_SERVER_CERTIFICATE", self.certificate);
        if !token.is_empty() {
            command.env("SLM_TOKEN", token);
        }
        run(command)
    }

    /// What it says, whether it went well or not.
    fn hears(&self, token: &str, arguments: &[&str]) -> Result<(bool, String)> {
        let ended = self.slm(token, arguments)?;
        Ok((ended.status.success(), ended.said))
    }
}

/// The Secret of the endpoint: two callers at first, later one.
fn access(certificate: &str, key: &str, tokens: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "access"},
        "stringData": {"tls.crt": certificate, "tls.key": key, "tokens.yaml": tokens},
    })
    .to_string()
}

const OPERATIONS: &str = "token-of-operations";
const BANK_TEAM: &str = "token-of-the-bank-team";

fn install() -> Result<()> {
    let hosts = format!("worker.insecureHosts={{{}}}", variable("SLM_REGISTRY_NAME")?);
    let values = [
        "worker.cache.claimName=cache",
        "router.access.secretName=access",
        "acceleratorProfiles.create=false",
        "operator.replicas=1",
        "router.replicas=1",
        hosts.as_str(),
    ];
    let sets: Vec<_> = values.into_iter().flat_map(|value| ["--set", value]).collect();
    let install = ["install", "second", "charts/slm-swarm", "-n", NAMESPACE, "--wait", "--timeout=120s"];
    helm(&[&install, &sets[..]].concat()).map(|_| ())
}

/// Never panics: what it made is removed after it.
async fn serves(models: &Path, cache: &Path) -> Result<()> {
    apply_in(NAMESPACE, &(claim("models", models) + &claim("cache", cache)))?;
    let own = rcgen::generate_simple_self_signed(["second.example.com".to_owned()])?;
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let operations = format!("- name: operations\n  token: {OPERATIONS}\n");
    let both = format!("{operations}- name: bank-team\n  token: {BANK_TEAM}\n  models: [bank*]\n");
    apply_in(NAMESPACE, &access(&certificate, &key, &both))?;
    install()?;
    let adapter = push_adapter(&quickstart_adapter("banking"), "second-bank:1")?;
    apply_in(NAMESPACE, &manifests(&adapter))?;
    kubectl(&["-n", NAMESPACE, "wait", "--for=condition=Ready", "slm,lora", "--all", "--timeout=180s"])?;
    // Two workers, and each thing once: the converted model, and the adapter.
    let found = (cached(cache, "converted")?, cached(cache, "artifacts")?);
    ensure!(found == (1, 1), "{found:?}");

    let service = kubectl_json(&["-n", NAMESPACE, "get", "service", "second-slm-swarm-router"])?;
    let ip = service["spec"]["clusterIP"].as_str().context("clusterIP")?.to_owned();
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), &certificate)?;
    let caller = Caller { address: format!("https://{ip}:50051"), certificate: file.path() };
    let freeze = ["run", "bank", "put a freeze on my bank account right now"];
    for token in [OPERATIONS, BANK_TEAM] {
        let (well, said) = caller.hears(token, &freeze)?;
        ensure!(well && said.contains("freeze_account"), "{said}");
    }
    let (well, said) = caller.hears("", &freeze)?;
    ensure!(!well && said.contains("token"), "{said}");
    let (well, said) = caller.hears("token-of-nobody-here", &freeze)?;
    ensure!(!well && said.contains("token"), "{said}");
    // What the token may not use does not exist.
    let (well, said) = caller.hears(BANK_TEAM, &["run", "base", "hello"])?;
    ensure!(!well && said.contains("base"), "{said}");
    let (_, listed) = caller.hears(BANK_TEAM, &["get", "all"])?;
    ensure!(listed.contains("LoraAdapter") && !listed.contains("SlmModel"), "{listed}");
    helm(&["test", "second", "-n", NAMESPACE, "--timeout=60s"])?;

    // A token that is taken back, with no restart.
    apply_in(NAMESPACE, &access(&certificate, &key, &operations))?;
    until("the token to be refused", || Ok((!caller.hears(BANK_TEAM, &freeze)?.0).then_some(()))).await?;
    ensure!(caller.hears(OPERATIONS, &freeze)?.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_swarm_reads_a_claim_shares_a_cache_and_asks_for_tokens() -> Result<()> {
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

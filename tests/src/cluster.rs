//! A swarm on a real cluster, as `scripts/e2e` has installed it, and the tools that people use on one.

mod certificates;
mod load;
mod tools;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

pub use self::{
    certificates::{secret, worker_channel},
    load::{LoadReport, Steady},
    tools::{apply, apply_in, cluster, helm, kubectl, kubectl_json, oras_push, variable},
};
use crate::swarm::Client;

/// The namespace of the swarm under test.
pub const NAMESPACE: &str = "swarm";
/// The Helm release.
pub const RELEASE: &str = "swarm";
/// The base model.
pub const MODEL: &str = "smollm2";
/// Longest time to an expected state of the cluster.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at the cluster.
const TICK: Duration = Duration::from_millis(50);

/// A pod, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its address.
    pub ip: String,
    /// Ready, and not on its way out.
    pub ready: bool,
    /// Time of the last change of its Ready condition.
    pub ready_changed: String,
    /// Its container runs, whether it is ready or not.
    pub running: bool,
    /// Restarts of its container.
    pub restarts: u64,
}

/// `IP:PORT` of the routers' Service.
pub fn router(port: &str) -> Result<String> {
    let service = kubectl_json(&["get", "service", &format!("{RELEASE}-slm-swarm-router")])?;
    let ip = service["spec"]["clusterIP"].as_str().context("clusterIP")?;
    let ports = service["spec"]["ports"].as_array().context("ports")?;
    let port = ports.iter().find(|found| found["name"] == port).with_context(|| format!("port {port}"))?;
    Ok(format!("{ip}:{}", port["port"]))
}

/// A gRPC client of the routers' Service.
pub fn client() -> Result<Client> {
    Client::new(&format!("http://{}", router("grpc")?))
}

/// Pods of a selector.
pub fn pods(selector: &str) -> Result<Vec<Pod>> {
    let list = kubectl_json(&["get", "pods", "-l", selector])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pod = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
        Pod {
            name: text(&pod["metadata"]["name"]),
            node: text(&pod["spec"]["nodeName"]),
            ip: text(&pod["status"]["podIP"]),
            ready: ready.is_some_and(|ready| ready["status"] == "True")
                && pod["metadata"]["deletionTimestamp"].is_null(),
            ready_changed: ready.map(|ready| text(&ready["lastTransitionTime"])).unwrap_or_default(),
            running: pod["status"]["containerStatuses"][0]["state"]["running"].is_object(),
            restarts: pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0),
        }
    };
    Ok(list["items"].as_array().into_iter().flatten().map(pod).collect())
}

/// The worker pods of the base model.
pub fn workers() -> Result<Vec<Pod>> {
    pods(&format!("slmswarm.io/model={MODEL}"))
}

/// Waits until `look` finds something.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(begun.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
    }
}

/// Status, reason and message of an object's Ready condition.
pub fn ready(kind: &str, name: &str) -> Result<(String, String, String)> {
    let object = kubectl_json(&["get", kind, name])?;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("reason"), text("message")))
}

/// Waits until an object's Ready condition has `reason`, and gives its message.
pub async fn until_reason(kind: &str, name: &str, reason: &str) -> Result<String> {
    let mut last = None;
    let found = until(&format!("{kind} {name} to say {reason}"), || {
        let (_, found, message) = ready(kind, name)?;
        last = Some(format!("{found}: {message}"));
        Ok((found == reason).then_some(message))
    })
    .await;
    found.with_context(|| format!("last: {}", last.unwrap_or_default()))
}

/// Waits until everything of the quickstart is Ready.
pub fn wait_ready() -> Result<()> {
    kubectl(&["wait", "--for=condition=Ready", "slm,lora,sroute", "--all", "--timeout=120s"]).map(|_| ())
}

/// Digests of an adapter by pod, as its status has them: what serves.
pub fn instances(adapter: &str) -> Result<BTreeMap<String, String>> {
    let object = kubectl_json(&["get", "lora", adapter])?;
    let instances = object["status"]["instances"].as_array().cloned().unwrap_or_default();
    let serving = instances.iter().filter(|instance| instance["state"] == "Serving");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(serving.map(|instance| (text(&instance["pod"]), text(&instance["digest"]))).collect())
}

/// Pushes the adapter in `folder` as `NAME:TAG` and gives the URI for pods.
pub fn push_adapter(folder: &Path, reference: &str) -> Result<String> {
    const CONFIG: &str = "adapter_config.json:application/vnd.cncf.model.weight.config.v1.raw";
    const WEIGHTS: &str = "adapter_model.safetensors:application/vnd.cncf.model.weight.v1.raw";
    oras_push(folder, reference, &[CONFIG, WEIGHTS])?;
    Ok(format!("oci://{}/{reference}", variable("SLM_REGISTRY_NAME")?))
}

/// A manifest of an adapter on the base model.
pub fn adapter_manifest(name: &str, uri: &str) -> String {
    format!(
        "apiVersion: slmswarm.io/v1alpha1\nkind: LoraAdapter\nmetadata: {{name: {name}}}\n\
         spec:\n  modelRef: {{name: {MODEL}}}\n  source: {{uri: '{uri}'}}\n"
    )
}

/// Sends a signal to the `slm` of a pod's container on this machine: the pod's name is its hostname.
pub fn signal(pod: &str, signal: Signal) -> Result<()> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let named = environment.split(|byte| *byte == 0).any(|line| line == format!("HOSTNAME={pod}").as_bytes());
        let command = std::fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        if named && command.contains("slm") {
            let pid: i32 = entry.file_name().to_string_lossy().parse()?;
            kill(Pid::from_raw(pid), signal)?;
            return Ok(());
        }
    }
    bail!("no process of pod {pod} on this machine")
}

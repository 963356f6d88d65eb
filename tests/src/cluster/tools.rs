//! kubectl, helm and oras, as people call them.

use std::{
    env,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::NAMESPACE;
use crate::swarm::repository;

/// A variable that `scripts/e2e` sets.
pub fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set; run `make e2e`, which sets it"))
}

fn run(mut command: Command, input: Option<&str>) -> Result<String> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes())?;
    }
    let ended = child.wait_with_output()?;
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    ensure!(ended.status.success(), "{command:?}: {}\n{out}{err}", ended.status);
    Ok(out.into_owned())
}

fn of_cluster(program: &str, arguments: &[&str]) -> Result<Command> {
    variable("KUBECONFIG")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(repository());
    Ok(command)
}

/// kubectl in the swarm's namespace; one that `arguments` name goes before.
pub fn kubectl(arguments: &[&str]) -> Result<String> {
    run(of_cluster("kubectl", &[&["-n", NAMESPACE], arguments].concat())?, None)
}

/// `kubectl apply -f -`.
pub fn apply(manifest: &str) -> Result<()> {
    apply_in(NAMESPACE, manifest)
}

/// The same in another namespace.
pub fn apply_in(namespace: &str, manifest: &str) -> Result<()> {
    run(of_cluster("kubectl", &["-n", namespace, "apply", "-f", "-"])?, Some(manifest)).map(|_| ())
}

/// kubectl with `-o json`.
pub fn kubectl_json(arguments: &[&str]) -> Result<Value> {
    let text = kubectl(&[arguments, &["-o", "json"]].concat())?;
    serde_json::from_str(&text).with_context(|| format!("kubectl {arguments:?}"))
}

/// helm in the swarm's namespace; one that `arguments` name goes before.
pub fn helm(arguments: &[&str]) -> Result<String> {
    run(of_cluster("helm", &[&["-n", NAMESPACE], arguments].concat())?, None)
}

/// Pushes files of `folder`, each with its media type, as `NAME:TAG`.
pub fn oras_push(folder: &Path, reference: &str, files: &[&str]) -> Result<()> {
    let mut command = Command::new("oras");
    command.args(["push", "--plain-http", &format!("{}/{reference}", variable("SLM_REGISTRY")?)]).args(files);
    command.current_dir(folder);
    run(command, None).map(|_| ())
}

/// The cluster's own controls: `apiserver stop` and so on.
pub fn cluster(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(repository().join("scripts/cluster"));
    command.args(arguments);
    run(command, None).map(|_| ())
}

//! The clients that people use, against the quickstart's own manifests: the official `openai` package, and stubs
//! generated from the published proto.

use std::{env, path::PathBuf, process::Command, sync::Arc};

use anyhow::{Context, Result, ensure};
use slm_convert::bundle::cache_dir;
use slm_tests::swarm::{Shared, Swarm, repository, run};

static QUICKSTART: Shared<Swarm> = Shared::new();

fn quickstart() -> Result<Arc<Swarm>> {
    QUICKSTART.get(|| Swarm::start(&repository().join("examples/quickstart")))
}

/// `$SLM_TEST_PYTHON`, else the environment that `scripts/setup clients` makes.
fn python() -> Result<PathBuf> {
    if let Some(python) = env::var_os("SLM_TEST_PYTHON").filter(|python| !python.is_empty()) {
        return Ok(python.into());
    }
    let python = cache_dir().context("no cache folder")?.join("venv/bin/python");
    ensure!(python.exists(), "{}: not there; run `scripts/setup clients`, or set SLM_TEST_PYTHON", python.display());
    Ok(python)
}

fn client(script: &str, arguments: &[String]) -> Result<()> {
    let mut command = Command::new(python()?);
    command.arg(repository().join("tests/clients").join(script)).args(arguments);
    // The scripts' own folder stays clean.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = run(command)?;
    assert!(ended.status.success(), "{script}, {}:\n{}", ended.status, ended.said);
    Ok(())
}

#[test]
fn the_official_openai_client() -> Result<()> {
    let swarm = quickstart()?;
    let expected = repository().join("examples/quickstart/expected.json");
    client("openai_client.py", &[format!("{}/v1", swarm.http), expected.display().to_string()])
}

#[test]
fn a_client_generated_from_the_proto() -> Result<()> {
    let swarm = quickstart()?;
    let address = swarm.grpc.trim_start_matches("http://").to_owned();
    client("grpc_client.py", &[address, repository().join("proto/proto").display().to_string()])
}

//! The scripts of tests/clients: callers in Python, with the packages that people use.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use slm_convert::bundle::cache_dir;

use crate::swarm::{repository, run};

/// `$SLM_TEST_PYTHON`, else the environment that `scripts/setup clients` makes.
fn interpreter() -> Result<PathBuf> {
    if let Some(python) = env::var_os("SLM_TEST_PYTHON").filter(|python| !python.is_empty()) {
        return Ok(python.into());
    }
    let python = cache_dir().context("no cache folder")?.join("venv/bin/python");
    ensure!(python.exists(), "{}: not there; run `scripts/setup clients`, or set SLM_TEST_PYTHON", python.display());
    Ok(python)
}

/// Runs a script to its end; what it says is the error when it fails.
pub fn python(script: &str, arguments: &[String]) -> Result<()> {
    let mut command = Command::new(interpreter()?);
    command.arg(repository().join("tests/clients").join(script)).args(arguments);
    // The scripts' own folder stays clean.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = run(command)?;
    ensure!(ended.status.success(), "{script}, {}:\n{}", ended.status, ended.said);
    Ok(())
}

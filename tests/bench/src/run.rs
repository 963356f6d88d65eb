//! What all measurements share.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Result;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{process::Child, time};

use crate::{model::Model, select::Selection};

/// How to measure, and with what.
pub(crate) struct Run {
    pub(crate) slm: PathBuf,
    pub(crate) repeat: usize,
    pub(crate) only: Selection,
    pub(crate) model: Model,
    pub(crate) dir: tempfile::TempDir,
}

impl Run {
    /// A folder of its own for one measurement.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

/// Ends a server as Ctrl-C would.
pub(crate) async fn interrupt(mut process: Child) -> Result<()> {
    if let Some(pid) = process.id() {
        kill(Pid::from_raw(pid as i32), Signal::SIGINT)?;
    }
    time::timeout(Duration::from_secs(20), process.wait()).await??;
    Ok(())
}

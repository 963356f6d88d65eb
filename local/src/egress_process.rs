//! The egress process, which asks models outside: it runs while a manifest has one.

use std::{ffi::OsString, io, path::PathBuf, time::Duration};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    event::{ChildId, Event},
    reconcile::DesiredExternal,
    server_process::ServerProcess,
};

/// Launch options of the egress.
#[derive(Clone, Debug)]
pub struct EgressSettings {
    /// File of Secret manifests with the tokens of models outside.
    pub secrets: Option<PathBuf>,
    /// File that records of calls are appended to; without it they are lines of standard error.
    pub audit: Option<PathBuf>,
    /// Whether records have the texts, too.
    pub audit_content: bool,
    /// Time for running answers to finish after a shutdown was requested.
    pub drain: Duration,
}

/// A snapshot for the egress, as `slm egress` reads it.
#[derive(Serialize)]
struct Snapshot<'d> {
    generation: u64,
    externals: &'d [DesiredExternal],
}

/// The egress, which is started again when it dies.
#[derive(Debug)]
pub(crate) struct EgressProcess {
    settings: EgressSettings,
    pub(crate) process: ServerProcess,
    phase: Phase,
    /// What it was told last.
    told: Vec<DesiredExternal>,
    generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no process.
    Ended,
    Running,
    /// It finishes what runs, and ends.
    Stopping,
    /// It died, and is started again after a pause.
    Resting,
}

impl EgressProcess {
    /// Not started yet.
    pub(crate) fn new(settings: EgressSettings, events: mpsc::Sender<Event>) -> Self {
        let process = ServerProcess::new(ChildId::Egress, settings.drain, events);
        Self { settings, process, phase: Phase::Ended, told: Vec::new(), generation: 0 }
    }

    /// Starts it when there are models outside, tells it of them, and ends it when there are none any more.
    ///
    /// # Errors
    /// The system does not start the process.
    pub(crate) async fn follow(&mut self, externals: &[DesiredExternal]) -> io::Result<()> {
        match self.phase {
            Phase::Ended if !externals.is_empty() => self.start(externals).await,
            Phase::Running if externals.is_empty() => {
                self.stop();
                Ok(())
            }
            Phase::Running if self.told != externals => {
                self.tell(externals).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn start(&mut self, externals: &[DesiredExternal]) -> io::Result<()> {
        let EgressSettings { secrets, audit, audit_content, drain: _ } = &self.settings;
        let flags = ["egress", "--follow-stdin", "--grpc", "127.0.0.1:0"].map(OsString::from);
        let named = |flag: &str, path: &Option<PathBuf>| path.clone().map(|path| [OsString::from(flag), path.into()]);
        let files = named("--secrets", secrets).into_iter().chain(named("--audit", audit)).flatten();
        let content = audit_content.then(|| OsString::from("--audit-content"));
        self.process.start(flags.into_iter().chain(files).chain(content))?;
        self.phase = Phase::Running;
        self.tell(externals).await;
        Ok(())
    }

    async fn tell(&mut self, externals: &[DesiredExternal]) {
        self.generation += 1;
        self.told = externals.to_vec();
        let line = serde_json::to_string(&Snapshot { generation: self.generation, externals });
        if let Ok(line) = line {
            self.process.say(line).await;
        }
    }

    /// It may be started again.
    pub(crate) fn rested(&mut self) {
        if self.phase == Phase::Resting {
            self.phase = Phase::Ended;
        }
    }

    /// Lets it finish what runs, and end.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping;
        }
    }

    /// It ended. Gives how long to wait before its next start, if it was not to end.
    pub(crate) fn ended(&mut self) -> Option<Duration> {
        let pause = self.process.ended();
        let wanted = self.phase != Phase::Stopping;
        self.phase = if wanted { Phase::Resting } else { Phase::Ended };
        wanted.then_some(pause)
    }
}

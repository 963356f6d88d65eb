//! The egress process, which asks models outside: it runs while a manifest has one.

use std::{ffi::OsString, io, path::PathBuf, time::Duration};

use serde::Serialize;
use slm_residency::pause::backoff;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    child::Child,
    event::{ChildId, Event, RESTART_PAUSE_MAX},
    reconcile::DesiredExternal,
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
    events: mpsc::Sender<Event>,
    child: Option<Child>,
    phase: Phase,
    killer: CancellationToken,
    /// What it was told last.
    told: Vec<DesiredExternal>,
    generation: u64,
    attempts: u32,
    /// Reason for its exit, as it printed it.
    pub failed: Option<String>,
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
        Self {
            settings,
            events,
            child: None,
            phase: Phase::Ended,
            killer: CancellationToken::new(),
            told: Vec::new(),
            generation: 0,
            attempts: 0,
            failed: None,
        }
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
        let EgressSettings { secrets, audit, audit_content, drain } = &self.settings;
        let drain = format!("{}ms", drain.as_millis());
        let flags = ["egress", "--follow-stdin", "--grpc", "127.0.0.1:0", "--drain", &drain].map(OsString::from);
        let named = |flag: &str, path: &Option<PathBuf>| path.clone().map(|path| [OsString::from(flag), path.into()]);
        let files = named("--secrets", secrets).into_iter().chain(named("--audit", audit)).flatten();
        let content = audit_content.then(|| OsString::from("--audit-content"));
        let child = Child::start(ChildId::Egress, flags.into_iter().chain(files).chain(content), self.events.clone())?;
        self.killer = child.killer();
        self.child = Some(child);
        self.failed = None;
        self.phase = Phase::Running;
        self.tell(externals).await;
        Ok(())
    }

    async fn tell(&mut self, externals: &[DesiredExternal]) {
        self.generation += 1;
        self.told = externals.to_vec();
        let line = serde_json::to_string(&Snapshot { generation: self.generation, externals });
        if let (Some(child), Ok(line)) = (&self.child, line) {
            child.say(line).await;
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
        self.child = None;
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Stopping;
        let killer = self.killer.clone();
        let limit = self.settings.drain + Duration::from_secs(5);
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            killer.cancel();
        });
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        self.killer.cancel();
    }

    /// Whether there is no process any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended | Phase::Resting)
    }

    /// It ended. Gives how long to wait before its next start, if it was not to end.
    pub(crate) fn ended(&mut self) -> Option<Duration> {
        self.child = None;
        if self.phase == Phase::Stopping {
            self.phase = Phase::Ended;
            return None;
        }
        self.phase = Phase::Resting;
        self.attempts += 1;
        Some(backoff(self.attempts - 1, RESTART_PAUSE_MAX))
    }
}

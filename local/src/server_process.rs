//! The life of the router's and of the egress's process: one at a time, stopped by the end of its standard input, and started again
//! when it dies.

use std::{ffi::OsString, io, time::Duration};

use slm_residency::pause::backoff;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    child::Child,
    event::{ChildId, Event, FINE, RESTART_PAUSE_MAX},
};

/// A server of the swarm.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    id: ChildId,
    events: mpsc::Sender<Event>,
    drain: Duration,
    /// `None` once it is to end.
    child: Option<Child>,
    /// Of the process that is there.
    since: Option<Instant>,
    killer: CancellationToken,
    /// Starts since it ran long enough to be fine.
    attempts: u32,
    /// Reason for its exit, as it printed it.
    pub(crate) failed: Option<String>,
}

impl ServerProcess {
    /// Not started yet.
    pub(crate) fn new(id: ChildId, drain: Duration, events: mpsc::Sender<Event>) -> Self {
        let killer = CancellationToken::new();
        Self { id, events, drain, child: None, since: None, killer, attempts: 0, failed: None }
    }

    /// Starts it.
    ///
    /// # Errors
    /// The system does not start the process.
    pub(crate) fn start(&mut self, flags: impl IntoIterator<Item = OsString>) -> io::Result<()> {
        let drain = ["--drain".into(), format!("{}ms", self.drain.as_millis()).into()];
        let child = Child::start(self.id, flags.into_iter().chain(drain), self.events.clone())?;
        self.killer = child.killer();
        self.child = Some(child);
        self.since = Some(Instant::now());
        self.failed = None;
        Ok(())
    }

    /// Writes a line to it. One that has ended, or is to end, does not mind.
    pub(crate) async fn say(&self, line: String) {
        if let Some(child) = &self.child {
            child.say(line).await;
        }
    }

    /// Lets it finish what runs, and end.
    pub(crate) fn stop(&mut self) {
        if self.child.take().is_none() {
            return;
        }
        let killer = self.killer.clone();
        // Its own limit is the drain; after that, and some time to end, it is stuck.
        let limit = self.drain + Duration::from_secs(5);
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            killer.cancel();
        });
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        self.killer.cancel();
    }

    /// Whether there is no process.
    pub(crate) fn has_ended(&self) -> bool {
        self.since.is_none()
    }

    /// It ended; gives how long to wait before its next start.
    pub(crate) fn ended(&mut self) -> Duration {
        self.child = None;
        if self.since.take().is_some_and(|since| since.elapsed() >= FINE) {
            self.attempts = 0;
        }
        self.attempts += 1;
        backoff(self.attempts - 1, RESTART_PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_ran_long_enough_is_started_again_at_once() {
        let mut server = ServerProcess::new(ChildId::Router, Duration::ZERO, mpsc::channel(1).0);
        let mut ran = |time: Duration| {
            server.since = Instant::now().checked_sub(time);
            server.ended()
        };
        let first = ran(Duration::ZERO);
        let later = (0..8).map(|_| ran(Duration::ZERO)).max().unwrap_or_default();
        assert!(later > 4 * first, "{first:?} {later:?}");
        assert!(ran(FINE) < later);
    }
}

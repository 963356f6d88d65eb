//! Everything that the supervisor learns.

use std::time::Duration;

use slm_router::SwarmReadiness;
use tokio::sync::mpsc;

use crate::{child::ChildOutput, reconcile::WorkerId};

/// Most time between two attempts to start a process.
pub(crate) const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

/// A child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildId {
    /// One of the workers.
    Worker(WorkerId),
    /// The router.
    Router,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A child said something, or ended.
    Child(ChildId, ChildOutput),
    /// The router's own word on its snapshot.
    Readiness(SwarmReadiness),
    /// The router has not been ready for long.
    Overdue(SwarmReadiness),
    /// Time to try again.
    Again(Retry),
}

/// What is tried again.
#[derive(Debug)]
pub(crate) enum Retry {
    /// To start a worker in place of one that died.
    Worker(WorkerId),
    /// To start the router.
    Router,
}

/// Sends `retry` after some time.
pub(crate) fn later(events: &mpsc::Sender<Event>, delay: Duration, retry: Retry) {
    let events = events.clone();
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        // Nobody listens any more only when everything ends.
        let _ = events.send(Event::Again(retry)).await;
    });
}

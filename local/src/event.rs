//! Events of the supervisor.

use std::time::Duration;

use slm_router::SwarmReadiness;
use tokio::sync::mpsc;

use crate::{child::ChildOutput, reconcile::WorkerId};

/// Time of serving after which a restart counts as the first again.
pub(crate) const FINE: Duration = Duration::from_secs(10);
/// Longest pause between attempts to start a process.
pub(crate) const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Identity of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildId {
    /// One of the workers.
    Worker(WorkerId),
    /// The router.
    Router,
    /// What asks models outside.
    Egress,
}

/// An event.
#[derive(Debug)]
pub(crate) enum Event {
    /// Output or exit of a child.
    Child(ChildId, ChildOutput),
    /// Readiness of the swarm, as the router reports it.
    Readiness(SwarmReadiness),
    /// Readiness of a router that has not become ready in time.
    Overdue(SwarmReadiness),
    /// A restart that is due.
    Again(Retry),
}

/// A process whose restart is due.
#[derive(Debug)]
pub(crate) enum Retry {
    /// A worker, in place of one that died.
    Worker(WorkerId),
    /// The router.
    Router,
    /// The egress.
    Egress,
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

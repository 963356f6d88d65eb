//! Everything that the supervisor learns.

use std::time::Duration;

use serde::Deserialize;
use slm_proto::v1::WorkerState;
use tokio::sync::mpsc;
use tonic::Status;

use super::child::FromChild;
use crate::reconcile::{Version, WorkerId};

/// A child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// One of the workers.
    Worker(WorkerId),
    /// The router.
    Router,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A child said something, or ended.
    Child(Who, FromChild),
    /// A worker told its state.
    State(WorkerId, Box<WorkerState>),
    /// A load ended; what is resident then comes with the state.
    Loaded(WorkerId, String, Version, Result<(), Status>),
    /// An unload ended.
    Unloaded(WorkerId, String, Result<(), Status>),
    /// The router's own word on its snapshot.
    Readiness(Readiness),
    /// The router has not been ready for long.
    Overdue(Readiness),
    /// Time to try again.
    Again(Retry),
}

/// What is tried again.
#[derive(Debug)]
pub enum Retry {
    /// To start a worker in place of one that died.
    Worker(WorkerId),
    /// To load an adapter for which there was no room.
    Load(WorkerId, String),
    /// To unload an adapter.
    Unload(WorkerId, String),
    /// To start the router.
    Router,
}

/// What `/readyz` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Readiness {
    /// Nothing is missing.
    pub ready: bool,
    /// Of the snapshot that it speaks of.
    pub generation: u64,
    /// What is missing.
    #[serde(default)]
    pub missing: Vec<Missing>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Missing {
    /// The kind of object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// In words.
    pub why: String,
}

/// Sends `retry` after some time.
pub fn later(events: &mpsc::Sender<Event>, delay: Duration, retry: Retry) {
    let events = events.clone();
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        // Nobody listens any more only when everything ends.
        let _ = events.send(Event::Again(retry)).await;
    });
}

/// Grows from attempt to attempt, up to a limit.
pub fn backoff(attempt: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(250);
    const MOST: Duration = Duration::from_secs(30);
    FIRST.saturating_mul(1 << attempt.min(10)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_limit() {
        assert_eq!(backoff(0), Duration::from_millis(250));
        assert_eq!(backoff(2), Duration::from_secs(1));
        assert_eq!(backoff(40), Duration::from_secs(30));
    }
}

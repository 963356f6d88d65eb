//! What a person hears of a swarm on this machine. How it looks is for whoever runs it.

use std::fmt::Debug;

use slm_launch::WorkerLine;

use crate::reconcile::WorkerId;

/// Hears of progress and problems.
pub trait Reporter: Debug + Send + Sync {
    /// Something a person may want to know.
    fn note(&self, text: &str);
    /// Something that went wrong.
    fn problem(&self, text: &str);
    /// A line that a child wrote to its own standard error.
    fn log(&self, who: &str, line: &str);
    /// A worker on its way to its first request.
    fn opening(&self, id: WorkerId, model: &str, line: &WorkerLine);
    /// A worker that is on its way no longer.
    fn finished(&self, id: WorkerId);
}

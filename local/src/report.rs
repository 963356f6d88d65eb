//! The interface for progress and problems. The caller of this crate decides how they look.

use std::fmt::Debug;

use slm_launch::WorkerLine;

use crate::reconcile::WorkerId;

/// Receiver of progress and problems.
pub trait Reporter: Debug + Send + Sync {
    /// A note for people.
    fn note(&self, text: &str);
    /// A problem.
    fn problem(&self, text: &str);
    /// A line that a child wrote to its own standard error.
    fn log(&self, who: &str, line: &str);
    /// Progress of a worker that starts.
    fn opening(&self, id: WorkerId, model: &str, line: &WorkerLine);
    /// A worker that no longer starts: it is ready, or has ended.
    fn finished(&self, id: WorkerId);
}

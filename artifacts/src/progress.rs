//! Progress of a fetch.

/// Phase of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Resolving the tag or URL.
    Resolving,
    /// Waiting for another process that fetches the same; `done` is its progress.
    Waiting,
    /// Hashing a partial download in order to continue it.
    Verifying,
    /// Receiving bytes.
    Downloading,
    /// Unpacking an archive.
    Unpacking,
}

/// Progress of a fetch. Reported often; the receiver limits its own rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Current phase.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done: u64,
    /// Total bytes of the phase, if known.
    pub total: Option<u64>,
}

/// Receiver of progress.
pub(crate) type Watcher<'a> = &'a mut (dyn FnMut(Progress) + Send);

impl Progress {
    pub(crate) fn of(phase: Phase, done: u64, total: impl Into<Option<u64>>) -> Self {
        Self { phase, done, total: total.into() }
    }
}

//! What a fetch is doing.

/// What a fetch is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asks what the tag or URL stands for now.
    Resolving,
    /// Another process fetches the same; `done` is how far it is.
    Waiting,
    /// Reads what an earlier attempt left, in order to continue it.
    Verifying,
    /// Bytes arrive.
    Downloading,
    /// Writes the files of an archive.
    Unpacking,
}

/// How far a fetch is. Comes often; who shows it decides how often to do so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done: u64,
    /// Bytes in all, when known.
    pub total: Option<u64>,
}

/// Who wants to know.
pub(crate) type Watcher<'a> = &'a mut (dyn FnMut(Progress) + Send);

impl Progress {
    pub(crate) fn of(phase: Phase, done: u64, total: impl Into<Option<u64>>) -> Self {
        Self { phase, done, total: total.into() }
    }
}

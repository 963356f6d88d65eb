//! Write fence: the time until which this process may write.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// A fence, closed at first. Clones share one fence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// Allows writes to begin before `instant`.
    pub(crate) fn open_until(&self, instant: Instant) {
        self.set(Some(instant));
    }

    /// Allows no further write to begin.
    pub(crate) fn close(&self) {
        self.set(None);
    }

    /// Whether a write may begin now.
    pub(crate) fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

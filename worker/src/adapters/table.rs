//! The adapters as the backend sees them: by slot.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::LoadedAdapter;

/// What the backend sees: adapters by slot.
#[derive(Debug)]
pub struct AdapterTable {
    slots: Box<[ArcSwapOption<LoadedAdapter>]>,
}

impl AdapterTable {
    /// A table of `slots` empty slots.
    pub fn new(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// Puts an adapter into `slot`, or empties it; gives what was there.
    pub(crate) fn set(&self, slot: usize, adapter: Option<Arc<LoadedAdapter>>) -> Option<Arc<LoadedAdapter>> {
        // Shuttle chooses anew who goes on where a lock is taken, and this takes none.
        #[cfg(feature = "shuttle")]
        shuttle::thread::yield_now();
        self.slots.get(slot)?.swap(adapter)
    }

    /// The adapter in `slot`.
    pub fn get(&self, slot: usize) -> Option<Arc<LoadedAdapter>> {
        self.slots.get(slot)?.load_full()
    }
}

//! Loads in progress: of several for one name, the last one counts.

use std::{collections::HashMap, sync::Arc};

use super::Shared;

/// The last load of each name that is being loaded.
#[derive(Debug, Default)]
pub(super) struct Loads {
    current: HashMap<String, u64>,
    begun: u64,
}

impl Loads {
    pub(super) fn begin(&mut self, name: &str) -> u64 {
        self.begun += 1;
        self.current.insert(name.to_owned(), self.begun);
        self.begun
    }

    pub(super) fn is_current(&self, name: &str, load: u64) -> bool {
        self.current.get(name) == Some(&load)
    }

    pub(super) fn end(&mut self, name: &str, load: u64) {
        if self.is_current(name, load) {
            self.current.remove(name);
        }
    }

    /// What is being loaded for `name` is not wanted any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.current.remove(name);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_empty()
    }
}

/// A load in progress. Dropping it cancels the load: what is still done for it is not published.
#[derive(Debug)]
pub struct LoadTicket {
    pub(super) name: String,
    pub(super) number: u64,
    pub(super) registry: Arc<Shared>,
}

/// Which load it was that brought something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load(pub(super) u64);

impl LoadTicket {
    /// This load, to publish by.
    pub fn load(&self) -> Load {
        Load(self.number)
    }

    /// Whether it would still be published.
    pub fn is_current(&self) -> bool {
        self.registry.lock().loads.is_current(&self.name, self.number)
    }
}

impl Drop for LoadTicket {
    fn drop(&mut self) {
        self.registry.lock().loads.end(&self.name, self.number);
    }
}

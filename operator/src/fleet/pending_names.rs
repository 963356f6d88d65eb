//! A set of pending names, added by one task and taken by another. Adding never waits, and duplicates collapse.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

/// Pending names. Clones share one set.
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingNames(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<BTreeSet<String>>,
    added: Notify,
}

impl PendingNames {
    /// Adds a name.
    pub(crate) fn add(&self, name: String) {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        self.0.added.notify_one();
    }

    /// Waits until the set is not empty, and takes all of it.
    pub(crate) async fn take(&self) -> BTreeSet<String> {
        loop {
            let names = std::mem::take(&mut *self.0.names.lock().unwrap_or_else(PoisonError::into_inner));
            if !names.is_empty() {
                return names;
            }
            self.0.added.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn added_names_are_taken_once() {
        let pending = PendingNames::default();
        for name in ["b", "a", "b"] {
            pending.add(name.to_owned());
        }
        assert_eq!(pending.take().await, ["a", "b"].map(str::to_owned).into());
        let (other, taken) = (pending.clone(), tokio::spawn(async move { pending.take().await }));
        other.add("c".to_owned());
        assert_eq!(taken.await.expect("taken"), ["c".to_owned()].into());
    }
}

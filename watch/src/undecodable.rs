//! Objects of the API server that this release cannot decode.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::Notify;

/// An object that does not decode.
#[derive(Clone, Debug, PartialEq)]
pub struct Invalid {
    /// Its kind.
    pub kind: String,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Error of the decoder.
    pub error: String,
    /// Whether an earlier version of it stays in use.
    pub former_in_use: bool,
}

/// The objects of all watches of a process that do not decode now. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Undecodable(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    objects: Mutex<BTreeMap<(String, String), Invalid>>,
    changed: Notify,
}

impl Invalid {
    /// Key that tells this fault from an earlier one of the same object. A change of the status alone is not another
    /// fault.
    #[must_use]
    pub fn fault(&self) -> (Option<String>, Option<i64>, String) {
        // Kinds without a generation use the resource version.
        let version = self.metadata.resource_version.clone().filter(|_| self.metadata.generation.is_none());
        let identity = [self.metadata.uid.clone(), version].into_iter().flatten().collect::<Vec<_>>().join("/");
        (Some(identity).filter(|identity| !identity.is_empty()), self.metadata.generation, self.error.clone())
    }
}

impl Undecodable {
    /// All objects, by kind and name.
    #[must_use]
    pub fn all(&self) -> Vec<Invalid> {
        self.lock().values().cloned().collect()
    }

    /// The object of that kind and name.
    #[must_use]
    pub fn get(&self, kind: &str, name: &str) -> Option<Invalid> {
        self.lock().get(&(kind.to_owned(), name.to_owned())).cloned()
    }

    /// Number of objects by kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (kind, _) in self.lock().keys() {
            *counts.entry(kind.clone()).or_default() += 1;
        }
        counts
    }

    /// Waits until there is a new object or a new fault.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Adds an object that does not decode. True when the fault is new.
    pub fn insert(&self, name: &str, invalid: Invalid) -> bool {
        let before = self.lock().insert((invalid.kind.clone(), name.to_owned()), invalid.clone());
        let news = before.is_none_or(|before| before.fault() != invalid.fault());
        if news {
            self.0.changed.notify_one();
        }
        news
    }

    /// Removes an object that decodes again or is gone. True if there was one.
    pub(crate) fn remove(&self, kind: &str, name: &str) -> bool {
        self.lock().remove(&(kind.to_owned(), name.to_owned())).is_some()
    }

    /// Names of that kind.
    pub(crate) fn names(&self, kind: &str) -> Vec<String> {
        self.lock().keys().filter(|(of, _)| of == kind).map(|(_, name)| name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Invalid>> {
        self.0.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

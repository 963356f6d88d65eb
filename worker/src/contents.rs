//! Digests of artifacts' contents that were computed before.
//!
//! What the cache gives under a digest never changes, so its contents are hashed at the first load and not at each: for an
//! adapter that comes and goes that is a third of the time that loading it takes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Some hundred bytes each; one more, and all are forgotten.
const KNOWN_MAX: usize = 4096;

/// Digests by the path of the artifact in the cache.
#[derive(Debug, Default)]
pub(crate) struct Contents(Mutex<HashMap<PathBuf, String>>);

impl Contents {
    /// That of the artifact at `path`, if it was computed before.
    pub(crate) fn get(&self, path: &Path) -> Option<String> {
        self.lock().get(path).cloned()
    }

    /// Keeps it.
    pub(crate) fn keep(&self, path: &Path, digest: &str) {
        let mut known = self.lock();
        if known.len() >= KNOWN_MAX && !known.contains_key(path) {
            known.clear();
        }
        known.insert(path.to_owned(), digest.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_known_and_bounded() {
        let contents = Contents::default();
        assert_eq!(contents.get(Path::new("0")), None);
        for index in 0..KNOWN_MAX {
            contents.keep(Path::new(&index.to_string()), "d");
        }
        contents.keep(Path::new("0"), "e");
        assert_eq!((contents.get(Path::new("0")), contents.get(Path::new("9"))), (Some("e".into()), Some("d".into())));
        contents.keep(Path::new("more"), "f");
        assert_eq!((contents.get(Path::new("0")), contents.get(Path::new("more"))), (None, Some("f".into())));
    }
}

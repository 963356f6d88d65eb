//! Fetched artifacts.

use std::path::{Path, PathBuf};

use crate::cache::entry::Entry;

/// A fetched artifact. It is not evicted by any process while this lives.
#[derive(Debug)]
pub struct Artifact {
    path: PathBuf,
    stale: bool,
    entry: Option<Entry>,
}

impl Artifact {
    pub(crate) fn cached(entry: Entry, stale: bool) -> Self {
        Self { path: entry.path.clone(), stale, entry: Some(entry) }
    }

    pub(crate) fn in_place(path: PathBuf) -> Self {
        Self { path, stale: false, entry: None }
    }

    /// Path of the file, or of the folder with the files. Read-only.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Verified digest of the file, archive or manifest, as `sha256:HEX`.
    ///
    /// `None` for an artifact that is used in place (`file:`, `pvc:`): it was not read, and a requested digest is for
    /// the caller to compare.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.entry.as_ref().map(|entry| entry.index.digest.as_str())
    }

    /// Folder in the cache for data derived from the artifact, such as packed adapters. It need not exist, and is
    /// evicted with the artifact. `None` for an artifact that is used in place.
    #[must_use]
    pub fn derived(&self) -> Option<&Path> {
        self.entry.as_ref().map(|entry| entry.derived.as_path())
    }

    /// Bytes of its files in the cache; `None` for an artifact that is used in place.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.entry.as_ref().map(|entry| entry.index.bytes)
    }

    /// Whether the server was unreachable, so that this is the last known version of the tag or URL.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }
}

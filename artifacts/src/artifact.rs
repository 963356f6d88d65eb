//! What was fetched.

use std::path::{Path, PathBuf};

use crate::cache::entry::Entry;

/// Something that has been fetched. While it lives, no process evicts it.
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

    /// The file, or the folder with the files. Nothing may be written there.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `sha256:HEX` of the file, archive or manifest, which was compared with the bytes.
    ///
    /// `None` for what is used in place (`file:`, `pvc:`): nothing was read of it, and a digest that was asked for is
    /// the caller's to compare.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.entry.as_ref().map(|entry| entry.index.digest.as_str())
    }

    /// A folder of the cache, which may not be there yet, for what is made of it and can be made again: it goes when the
    /// artifact goes. `None` for what is used in place.
    #[must_use]
    pub fn derived(&self) -> Option<&Path> {
        self.entry.as_ref().map(|entry| entry.derived.as_path())
    }

    /// Bytes of its files in the cache; `None` for what is used in place.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.entry.as_ref().map(|entry| entry.index.bytes)
    }

    /// Whether the server could not be asked, and this is what the tag or URL stood for last.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }
}

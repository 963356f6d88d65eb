//! Digests of artifacts' contents that were computed before.
//!
//! What the cache gives under a digest is not meant to change, so its contents are hashed at the first load and not at each:
//! for an adapter that comes and goes that is a third of the time that loading it takes. Files that did change, by what
//! the system says of them, are hashed again.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// Some hundred bytes each; one more, and all are forgotten.
const KNOWN_MAX: usize = 4096;

/// Digests by the path of the artifact in the cache.
#[derive(Debug, Default)]
pub(crate) struct Contents(Mutex<HashMap<PathBuf, (Stamp, String)>>);

/// What the system says of a folder's files: names, sizes, times of the last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<(OsString, u64, SystemTime)>);

impl Stamp {
    /// Of the folder at `path` as it is now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let file = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            // Of what a link points to.
            let metadata = fs::metadata(entry.path())?;
            Ok((entry.file_name(), metadata.len(), metadata.modified()?))
        };
        let mut files = fs::read_dir(path)?.map(file).collect::<io::Result<Vec<_>>>()?;
        files.sort_unstable();
        Ok(Self(files))
    }
}

impl Contents {
    /// That of the artifact at `path`, if it was computed when its files were as `stamp` says.
    pub(crate) fn get(&self, path: &Path, stamp: &Stamp) -> Option<String> {
        self.lock().get(path).filter(|(was, _)| was == stamp).map(|(_, digest)| digest.clone())
    }

    /// Keeps it. The stamp is from before the files were read.
    pub(crate) fn keep(&self, path: &Path, stamp: Stamp, digest: &str) {
        let mut known = self.lock();
        if known.len() >= KNOWN_MAX && !known.contains_key(path) {
            known.clear();
        }
        known.insert(path.to_owned(), (stamp, digest.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, (Stamp, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_known_until_its_files_change() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        let (contents, stamp) = (Contents::default(), Stamp::of(dir.path()).unwrap());
        assert_eq!(contents.get(dir.path(), &stamp), None);
        contents.keep(dir.path(), stamp.clone(), "d");
        assert_eq!(contents.get(dir.path(), &stamp), Some("d".into()));
        fs::write(dir.path().join("a"), "22").unwrap();
        let changed = Stamp::of(dir.path()).unwrap();
        assert_eq!(contents.get(dir.path(), &changed), None);
        fs::write(dir.path().join("b"), "").unwrap();
        assert_ne!(Stamp::of(dir.path()).unwrap(), changed);
        assert!(Stamp::of(&dir.path().join("c")).is_err());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let (contents, stamp) = (Contents::default(), Stamp(Vec::new()));
        for index in 0..=KNOWN_MAX {
            contents.keep(Path::new(&index.to_string()), stamp.clone(), "d");
        }
        assert_eq!(contents.get(Path::new("0"), &stamp), None);
        assert_eq!(contents.get(Path::new(&KNOWN_MAX.to_string()), &stamp), Some("d".into()));
    }
}

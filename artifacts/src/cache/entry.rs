//! Cache entries: complete, verified files with an index.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::{
    Cache,
    lock::{acquired, is_at},
    sync_dir,
};

/// Name of an entry's index.
pub(crate) const INDEX: &str = "index.json";
/// Name of the folder of an entry's files.
pub(crate) const CONTENT: &str = "content";
/// Name of the folder of derived data.
pub(crate) const DERIVED: &str = "derived";

/// Index of an entry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Digest of the file, archive or manifest, as `sha256:HEX`.
    pub(crate) digest: String,
    /// Source of the first fetch, for humans.
    pub(crate) source: String,
    /// Artifact's root, relative to the entry.
    pub(crate) root: PathBuf,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Every file, relative to the entry.
    pub(crate) files: Vec<IndexFile>,
}

/// One file of an entry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    path: PathBuf,
    bytes: u64,
}

/// A cache entry in use. It is not evicted while this lives.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Path of the artifact's root.
    pub(crate) path: PathBuf,
    /// Folder for derived data.
    pub(crate) derived: PathBuf,
    /// Index of the entry.
    pub(crate) index: Index,
    // The index file, open and locked shared.
    _lease: File,
}

impl Cache {
    /// Looks up the entry of a key and locks it; `None` if there is none, or a damaged one.
    pub(crate) fn lookup(&self, key: &str) -> io::Result<Option<Entry>> {
        let dir = self.entry_dir(key);
        let Some(mut file) = open_index(&dir)? else { return Ok(None) };
        // An evicting process holds the lock only for a rename.
        file.lock_shared()?;
        if !is_at(&file, &dir.join(INDEX))? {
            return Ok(None);
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let Ok(index) = serde_json::from_str::<Index>(&text) else { return Ok(None) };
        if let Some(damage) = damage(&dir, &index) {
            tracing::warn!(key, damage, "entry of the cache is damaged; fetching it again");
            return Ok(None);
        }
        // Affects only the order of eviction, and the cache may be mounted read-only.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(Entry { path: dir.join(&index.root), derived: dir.join(DERIVED), index, _lease: file }))
    }

    /// Turns a staging folder into an entry, or finds that another process did.
    pub(crate) fn publish(&self, key: &str, staging: &Path, digest: &str, source: &str) -> io::Result<Entry> {
        let content = staging.join(CONTENT);
        let mut files = Vec::new();
        settle(&content, staging, &mut files)?;
        let index = Index {
            digest: format!("sha256:{digest}"),
            source: source.to_owned(),
            root: root(staging)?,
            bytes: files.iter().map(|file| file.bytes).sum(),
            files,
        };
        let lease = File::options().create_new(true).read(true).write(true).open(staging.join(INDEX))?;
        serde_json::to_writer(&lease, &index)?;
        lease.sync_all()?;
        sync_dir(staging)?;
        // Locked before it is visible, so that it cannot be evicted before its first use.
        lease.lock_shared()?;
        let dir = self.entry_dir(key);
        while let Err(error) = fs::rename(staging, &dir) {
            if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) {
                return Err(error);
            }
            match self.lookup(key)? {
                Some(entry) => return Ok(entry),
                None => self.discard(&dir)?,
            }
        }
        sync_dir(&self.dir)?;
        Ok(Entry { path: dir.join(&index.root), derived: dir.join(DERIVED), index, _lease: lease })
    }

    /// Removes an entry that is not in use. True if it did.
    pub(crate) fn evict(&self, key: &str) -> io::Result<bool> {
        let dir = self.entry_dir(key);
        let index = open_index(&dir)?;
        if let Some(index) = &index
            && !(acquired(index.try_lock())? && is_at(index, &dir.join(INDEX))?)
        {
            return Ok(false);
        }
        self.discard(&dir)?;
        Ok(true)
    }
}

/// Opens the index for writing where possible, which setting its mtime needs.
pub(crate) fn open_index(dir: &Path) -> io::Result<Option<File>> {
    let path = dir.join(INDEX);
    let opened = match File::options().read(true).write(true).open(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            File::open(&path)
        }
        opened => opened,
    };
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first file that differs from the index.
fn damage(dir: &Path, index: &Index) -> Option<String> {
    let damaged = |file: &&IndexFile| {
        !fs::metadata(dir.join(&file.path)).is_ok_and(|found| found.is_file() && found.len() == file.bytes)
    };
    index.files.iter().find(damaged).map(|file| file.path.display().to_string())
}

/// Syncs files and folders, normalises permissions, and lists the files in order of their names.
fn settle(dir: &Path, staging: &Path, files: &mut Vec<IndexFile>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            settle(&path, staging, files)?;
        } else if kind.is_file() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
            let file = File::open(&path)?;
            file.sync_all()?;
            let relative = path.strip_prefix(staging).map_err(io::Error::other)?.to_owned();
            files.push(IndexFile { path: relative, bytes: file.metadata()?.len() });
        }
    }
    sync_dir(dir)
}

/// Root of an artifact, relative to its entry: its `.gguf` if that is the only file, else the folder. Folders that
/// contain only one folder are entered, because many archives wrap their files in one.
fn root(staging: &Path) -> io::Result<PathBuf> {
    let mut root = PathBuf::from(CONTENT);
    loop {
        let mut entries = fs::read_dir(staging.join(&root))?.collect::<io::Result<Vec<_>>>()?;
        let Some(only) = entries.pop().filter(|_| entries.is_empty()) else { return Ok(root) };
        let kind = only.file_type()?;
        let name = PathBuf::from(only.file_name());
        if kind.is_dir() {
            root.push(name);
        } else {
            let gguf = name.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
            return Ok(if kind.is_file() && gguf { root.join(name) } else { root });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(cache: &Cache, key: &str, files: &[&str]) -> Entry {
        let staging = cache.partial().join("staging");
        for file in files {
            let path = staging.join(CONTENT).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "0123456789").unwrap();
        }
        cache.publish(key, &staging, "d", "test").unwrap()
    }

    #[test]
    fn what_is_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), u64::MAX).unwrap();
        for (files, expected) in [
            (vec!["x.gguf"], "content/x.gguf"),
            (vec!["models/a/x.GGUF"], "content/models/a/x.GGUF"),
            (vec!["adapter/a.json", "adapter/b.safetensors"], "content/adapter"),
            (vec!["x.bin"], "content"),
            (vec!["x.gguf", "README.md"], "content"),
        ] {
            let entry = published(&cache, "k", &files);
            assert_eq!(entry.path, dir.path().join("k").join(expected));
            assert_eq!(entry.index.bytes, 10 * files.len() as u64);
            drop(entry);
            assert!(cache.evict("k").unwrap());
        }
    }

    #[test]
    fn in_use_is_not_evicted_and_damaged_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), u64::MAX).unwrap();
        let first = published(&cache, "k", &["a", "b"]);
        let second = cache.lookup("k").unwrap().unwrap();
        drop(first);
        assert!(!cache.evict("k").unwrap());
        drop(second);
        fs::write(dir.path().join("k/content/a"), "short").unwrap();
        assert!(cache.lookup("k").unwrap().is_none());
        // A damaged entry is replaced even while it is in use.
        let third = published(&cache, "k", &["a"]);
        assert_eq!(third.index.files.len(), 1);
        drop(third);
        assert!(cache.evict("k").unwrap());
        assert!(cache.lookup("k").unwrap().is_none());
        assert_eq!(fs::read_dir(cache.trash()).unwrap().count(), 0);
    }

    #[test]
    fn the_same_made_twice_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), u64::MAX).unwrap();
        let first = published(&cache, "k", &["a"]);
        let second = published(&cache, "k", &["a"]);
        assert_eq!(first.path, second.path);
    }
}

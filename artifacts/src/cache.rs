//! The artifact cache: a folder that any number of processes, on any number of nodes, may share.
//!
//! ```text
//! sha256-HEX/            an entry: it appears and disappears atomically, by a rename
//!   index.json           its index; locked shared while in use, its mtime is the last use
//!   content/             its files
//! partial/KEY.lock       locked by the process that fetches KEY; removed when nothing is left to continue
//! partial/KEY/           partial download of KEY, and `staging`, the entry being built
//! refs/HEX.json          last known version of a tag or URL
//! trash/                 entries being removed
//! ```
//!
//! Locks are `flock`s, so they end with their process however it ends, and nothing depends on the age of a file.

pub(crate) mod converted;
pub(crate) mod entry;
pub(crate) mod evict;
pub(crate) mod job;
pub(crate) mod lock;
pub(crate) mod refs;
pub(crate) mod sweep;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::FetchError;
use converted::Converted;

/// Folders and size limit of a cache. All of its methods block; see [`blocking`].
#[derive(Debug)]
pub(crate) struct Cache {
    /// The cache's folder.
    pub(crate) dir: PathBuf,
    /// Size limit in bytes, converted models included.
    pub(crate) bytes_max: u64,
    /// Models converted from its artifacts.
    pub(crate) converted: Option<Converted>,
}

impl Cache {
    #[cfg(test)]
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        Self::open_with(dir, bytes_max, None)
    }

    pub(crate) fn open_with(dir: &Path, bytes_max: u64, converted: Option<PathBuf>) -> io::Result<Self> {
        let cache = Self { dir: dir.to_owned(), bytes_max, converted: converted.map(Converted) };
        for dir in [cache.partial(), cache.refs(), cache.trash()] {
            fs::create_dir_all(dir)?;
        }
        cache.sweep()?;
        Ok(cache)
    }

    pub(crate) fn entry_dir(&self, key: &str) -> PathBuf {
        self.dir.join(key)
    }

    pub(crate) fn partial(&self) -> PathBuf {
        self.dir.join("partial")
    }

    fn refs(&self) -> PathBuf {
        self.dir.join("refs")
    }

    fn trash(&self) -> PathBuf {
        self.dir.join("trash")
    }

    /// Removes a file or folder atomically: readers see all of it or nothing.
    pub(crate) fn discard(&self, path: &Path) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Random, because processes in several pods may have the same process id.
        let name = format!("{:016x}-{}", rand::random::<u64>(), COUNT.fetch_add(1, Ordering::Relaxed));
        let trash = self.trash().join(name);
        match fs::rename(path, &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        remove(&trash)
    }
}

/// Removes a file or folder, if it still exists.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes the names in a folder survive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Key of the entry for a digest (64 digits). The unpacked form is an entry of its own.
pub(crate) fn entry_key(digest: &str, unpacked: bool) -> String {
    if unpacked { format!("sha256-{digest}-unpacked") } else { format!("sha256-{digest}") }
}

/// Runs blocking work on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    cache: &Arc<Cache>,
    uri: &str,
    work: impl FnOnce(&Cache) -> io::Result<T> + Send + 'static,
) -> Result<T, FetchError> {
    let owned = Arc::clone(cache);
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| FetchError::io(uri, &cache.dir, error))
}

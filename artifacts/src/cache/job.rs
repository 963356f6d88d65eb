//! Exclusive fetch of a key, with the folder of its partial download.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use super::{Cache, blocking, entry::CONTENT, lock::FileLock, remove};
use crate::{
    FetchError,
    progress::{Phase, Progress, Watcher},
};

/// Polling interval of a waiting process. A blocking lock could not be cancelled by dropping the future.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The exclusive right to fetch `key`, held until the last clone is dropped. Threads that still write for an abandoned
/// fetch hold a clone, so that the next fetch starts after them.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    cache: Arc<Cache>,
    key: String,
    lock: Arc<FileLock>,
}

impl Job {
    /// Waits for the exclusive right.
    pub(crate) async fn begin(
        cache: &Arc<Cache>,
        key: &str,
        uri: &str,
        watch: Watcher<'_>,
    ) -> Result<Self, FetchError> {
        loop {
            let name = key.to_owned();
            match blocking(cache, uri, move |cache| cache.try_begin(&name)).await? {
                Ok(lock) => return Ok(Self { cache: Arc::clone(cache), key: key.to_owned(), lock: Arc::new(lock) }),
                Err(arrived) => watch(Progress::of(Phase::Waiting, arrived, None)),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Folder of the partial download. Its content belongs to the key, whichever process fetched it.
    pub(crate) fn dir(&self) -> PathBuf {
        self.cache.partial_dir(&self.key)
    }

    /// Folder in which the entry is built.
    pub(crate) fn staging(&self) -> PathBuf {
        self.dir().join("staging")
    }

    /// Content folder of the entry, emptied.
    pub(crate) fn fresh_content(&self) -> io::Result<PathBuf> {
        remove(&self.staging())?;
        let content = self.staging().join(CONTENT);
        fs::create_dir_all(&content)?;
        Ok(content)
    }

    /// Ends a failed fetch: a partial download stays, to be continued; an empty folder is removed.
    pub(crate) fn abandon(self) -> io::Result<()> {
        remove(&self.staging())?;
        if super::evict::bytes_in(&self.dir()) == 0 { self.finish() } else { Ok(()) }
    }

    /// Ends a fetch without leaving a partial download.
    pub(crate) fn finish(self) -> io::Result<()> {
        remove(&self.dir())?;
        // If a thread that is still ending holds a clone, the lock file stays, which is harmless.
        Arc::into_inner(self.lock).map_or(Ok(()), FileLock::remove)
    }
}

impl Cache {
    pub(crate) fn partial_dir(&self, key: &str) -> PathBuf {
        self.partial().join(key)
    }

    pub(crate) fn partial_lock(&self, key: &str) -> PathBuf {
        self.partial().join(format!("{key}.lock"))
    }

    /// The lock, or the number of bytes that its holder has received.
    fn try_begin(&self, key: &str) -> io::Result<Result<FileLock, u64>> {
        let Some(lock) = FileLock::try_exclusive(&self.partial_lock(key))? else {
            return Ok(Err(super::evict::bytes_in(&self.partial_dir(key))));
        };
        fs::create_dir_all(self.partial_dir(key))?;
        Ok(Ok(lock))
    }
}

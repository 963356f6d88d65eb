//! The right to fetch something, which one at a time has, and the folder to do it in.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use super::{Cache, blocking, entry::CONTENT, lock::FileLock, remove};
use crate::{
    FetchError,
    progress::{Phase, Progress, Watcher},
};

/// How often one that waits looks again. A lock that blocked could not be given up by a caller that is dropped.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The right to fetch `key`. Held until the last clone is gone: threads that still write for a fetch that was given up
/// have one, so the next one starts when they are done.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    cache: Arc<Cache>,
    key: String,
    lock: Arc<FileLock>,
}

impl Job {
    /// Waits for the right.
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

    /// Where bytes arrive. What lies there belongs to this key, whoever fetched it.
    pub(crate) fn dir(&self) -> PathBuf {
        self.cache.partial_dir(&self.key)
    }

    /// Where the entry is put together.
    pub(crate) fn staging(&self) -> PathBuf {
        self.dir().join("staging")
    }

    /// Its files; empties it first.
    pub(crate) fn fresh_content(&self) -> io::Result<PathBuf> {
        remove(&self.staging())?;
        let content = self.staging().join(CONTENT);
        fs::create_dir_all(&content)?;
        Ok(content)
    }

    /// After a failure: what arrived stays, to be continued. When nothing did, nothing stays.
    pub(crate) fn abandon(self) -> io::Result<()> {
        remove(&self.staging())?;
        if super::evict::bytes_in(&self.dir()) == 0 { self.finish() } else { Ok(()) }
    }

    /// Leaves nothing behind: the entry is there, or what arrived is of no use to anyone.
    pub(crate) fn finish(self) -> io::Result<()> {
        remove(&self.dir())?;
        // Another clone, in a thread that is still ending, keeps the lock's file, which then only is in nobody's way.
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

    /// The lock, or how many bytes have arrived at the one that has it.
    fn try_begin(&self, key: &str) -> io::Result<Result<FileLock, u64>> {
        let Some(lock) = FileLock::try_exclusive(&self.partial_lock(key))? else {
            return Ok(Err(super::evict::bytes_in(&self.partial_dir(key))));
        };
        fs::create_dir_all(self.partial_dir(key))?;
        Ok(Ok(lock))
    }
}

//! Staging: from verified downloads to a cache entry.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    FetchError,
    cache::{Cache, blocking, entry::Entry, job::Job},
    part::{Becomes, Part},
    progress::{Phase, Progress, Watcher},
    request::Request,
    unpack::{self, Limits, UnpackError},
};

/// Interval of progress reports.
const TELL: Duration = Duration::from_millis(100);

/// Bound on the unpacked bytes of an artifact, also in a cache without a limit: a few bytes can unpack to any number.
const UNPACKED_BYTES_MAX: u64 = 256 << 30;

/// Failure of staging.
enum StageError {
    Unpack { name: String, error: UnpackError },
    Io { path: PathBuf, error: io::Error },
}

impl Request<'_> {
    /// Builds an entry from parts. If the disk is full, evicts what it can and tries once more.
    pub(crate) async fn stage(
        &self,
        job: &Job,
        key: &str,
        digest: &str,
        parts: Vec<Part>,
        watch: Watcher<'_>,
    ) -> Result<Entry, FetchError> {
        let mut again = false;
        loop {
            let limits = Arc::new(Limits::new(self.tools.cache.bytes_max.min(UNPACKED_BYTES_MAX)));
            let staged = self.staged(job, parts.clone(), &limits, watch).await;
            let failed = match staged {
                Ok(()) => match self.publish(job, key, digest).await {
                    Ok(entry) => return Ok(entry),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if !failed.is_full_disk() {
                return Err(failed);
            }
            // The unpacked size is unknown, but at least what was written so far.
            let bytes = limits.done.load(Ordering::Relaxed).max(1);
            let cache = &self.tools.cache;
            let name = key.to_owned();
            let freed =
                if again { 0 } else { blocking(cache, self.uri, move |cache| cache.free_up(bytes, &name)).await? };
            if freed == 0 {
                return Err(FetchError::DiskFull { uri: self.uri.to_owned(), dir: cache.dir.clone(), bytes });
            }
            again = true;
        }
    }

    async fn staged(
        &self,
        job: &Job,
        parts: Vec<Part>,
        limits: &Arc<Limits>,
        watch: Watcher<'_>,
    ) -> Result<(), FetchError> {
        let unpacks = parts.iter().any(|part| matches!(part.becomes, Becomes::Files(_)));
        let (theirs, job) = (Arc::clone(limits), job.clone());
        let work = tokio::task::spawn_blocking(move || place(&job, &parts, &theirs));
        // Stops the writing thread if this fetch is dropped.
        let _given_up = GiveUp(limits);
        tokio::pin!(work);
        let mut tick = tokio::time::interval(TELL);
        let placed = loop {
            tokio::select! {
                placed = &mut work => break placed,
                _ = tick.tick(), if unpacks => {
                    let done = limits.done.load(Ordering::Relaxed);
                    watch(Progress::of(Phase::Unpacking, done, None));
                }
            }
        };
        match placed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.said(error)),
            Err(error) => Err(FetchError::io(self.uri, &self.tools.cache.dir, io::Error::other(error))),
        }
    }

    async fn publish(&self, job: &Job, key: &str, digest: &str) -> Result<Entry, FetchError> {
        let (staging, key, digest, uri) = (job.staging(), key.to_owned(), digest.to_owned(), self.uri.to_owned());
        blocking(&self.tools.cache, self.uri, move |cache| cache.publish(&key, &staging, &digest, &uri)).await
    }

    fn said(&self, error: StageError) -> FetchError {
        let uri = self.uri.to_owned();
        match error {
            StageError::Io { path, error } => FetchError::io(self.uri, path, error),
            StageError::Unpack { name, error } => match error {
                UnpackError::Unsafe(message) => FetchError::UnsafeArchive { uri, file: name, message },
                UnpackError::TooLarge(limit) => FetchError::TooLarge { uri, bytes: limit.saturating_add(1), limit },
                UnpackError::Io(error) => FetchError::io(self.uri, name, error),
            },
        }
    }
}

/// Ends a job; removes its partial download if it is of no further use.
pub(crate) async fn concluded<T>(
    job: Job,
    cache: &Arc<Cache>,
    uri: &str,
    result: Result<T, FetchError>,
) -> Result<T, FetchError> {
    // A full disk affects every fetch; keep the bytes only for other errors.
    let keep = result.as_ref().is_err_and(|error| {
        !matches!(
            error,
            FetchError::DigestMismatch { .. }
                | FetchError::UnsupportedMediaType { .. }
                | FetchError::UnsafeArchive { .. }
                | FetchError::TooLarge { .. }
                | FetchError::DiskFull { .. }
        )
    });
    let ended = blocking(cache, uri, move |cache| {
        if keep {
            return job.abandon();
        }
        job.finish()?;
        // The unpacked size is known only now. The new entry is in use, so it stays.
        cache.make_room(0, "").map(drop)
    });
    let ended = ended.await;
    // Opening the cache retries a failed cleanup.
    if let Err(error) = ended {
        tracing::warn!(%error, "cannot clear away a download");
    }
    result
}

struct GiveUp<'a>(&'a Limits);

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Relaxed);
    }
}

/// Blocks. Archives stay until the entry exists, because a second attempt needs them.
fn place(job: &Job, parts: &[Part], limits: &Limits) -> Result<(), StageError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| StageError::Io { path, error }
    };
    let content = job.fresh_content().map_err(io(&job.staging()))?;
    for part in parts {
        match &part.becomes {
            Becomes::Files(packing) => unpack::unpack(&part.from, *packing, &content, limits)
                .map_err(|error| StageError::Unpack { name: part.name.clone(), error })?,
            Becomes::File(path) => {
                let to = content.join(path);
                let parent = to.parent().unwrap_or(&content);
                fs::create_dir_all(parent).map_err(io(parent))?;
                // A hard link instead of a copy, where the file system has them.
                if fs::symlink_metadata(&to).is_ok() {
                    let error = UnpackError::Unsafe(format!("{}: is in the artifact twice", path.display()));
                    return Err(StageError::Unpack { name: part.name.clone(), error });
                }
                let placed = fs::hard_link(&part.from, &to).or_else(|_| fs::copy(&part.from, &to).map(drop));
                placed.map_err(io(&to))?;
            }
        }
    }
    Ok(())
}

//! From files that have arrived, verified, to an entry.

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

/// How often progress is told of.
const TELL: Duration = Duration::from_millis(100);

/// Bytes of all files in an artifact's archives, also in a cache without a bound: a few bytes can unpack to any number.
const UNPACKED_BYTES_MAX: u64 = 256 << 30;

/// Why it did not work.
enum StageError {
    Unpack { name: String, error: UnpackError },
    Io { path: PathBuf, error: io::Error },
}

impl Request<'_> {
    /// Makes an entry of parts. When the disk is full what can be evicted is, and it is tried once more.
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
            // What it unpacks to is not known; at least as much as it has come to so far.
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
        // A fetch that is given up does not go on writing.
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

/// Ends a fetch that had the right to be the only one, and leaves nothing behind that is of no use.
pub(crate) async fn concluded<T>(
    job: Job,
    cache: &Arc<Cache>,
    uri: &str,
    result: Result<T, FetchError>,
) -> Result<T, FetchError> {
    // A full disk is everyone's trouble; the others would only fail again over the same bytes.
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
        // Only now is it known what it unpacked to. The new entry is in use, so it stays.
        cache.make_room(0, "").map(drop)
    });
    let ended = ended.await;
    // The result matters more than what could not be cleared away, which opening the cache tries again.
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

/// Blocks. Archives stay until the entry is there: a second attempt needs them.
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
                // A second name for it, not another copy; where there are none, a copy it is.
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

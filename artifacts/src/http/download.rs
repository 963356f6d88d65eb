//! Resumable download into a file: continued after failures, verified, and restarted if necessary.

use std::{path::PathBuf, sync::Arc, time::Duration};

use reqwest::{
    Response, StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    partial::{Continue, Partial},
    rate::{MinimumRate, Rate},
    retry::{Fault, Retries, RetryPolicy},
    status,
};
use crate::{
    FetchError,
    cache::{Cache, blocking, evict::Room, job::Job},
    progress::{Phase, Progress, Watcher},
    validators::Validators,
};

/// Bound on chunks between connection and disk; each has at most about 16 KiB.
const CHUNKS_WAITING: usize = 64;
/// Room to reserve when the server does not announce a size.
const UNKNOWN_BYTES: u64 = 64 << 20;

/// An origin of bytes.
pub(crate) trait Origin: Sync {
    /// Sends one request, and gives its answer whatever the status.
    fn get(&self, headers: HeaderMap) -> impl Future<Output = Result<Response, Fault>> + Send;
}

fn validators(response: &Response) -> Validators {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Validators { etag: text(header::ETAG), last_modified: text(header::LAST_MODIFIED) }
}

/// Description of a download.
#[derive(Debug)]
pub(crate) struct DownloadRequest {
    /// For messages.
    pub(crate) uri: String,
    /// The file or blob, for messages.
    pub(crate) name: String,
    /// URL of the origin. A partial download from another URL is continued only if a digest verifies the result.
    pub(crate) url: String,
    /// Path of the file to write.
    pub(crate) path: PathBuf,
    /// Expected digest, if known.
    pub(crate) digest: Option<String>,
    /// Expected size, if known.
    pub(crate) size: Option<u64>,
    /// Validators for a conditional request.
    pub(crate) unless: Option<Validators>,
}

/// Outcome of a download.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The file is at its path.
    Arrived { digest: String, validators: Validators },
    /// The server's version is the one that the caller has.
    NotModified,
}

/// One download.
pub(crate) struct Download<'a, O> {
    pub(crate) origin: &'a O,
    pub(crate) request: &'a DownloadRequest,
    pub(crate) cache: &'a Arc<Cache>,
    pub(crate) job: &'a Job,
    /// Key of the job; its partial download is never evicted for itself.
    pub(crate) key: &'a str,
    pub(crate) retry: RetryPolicy,
    pub(crate) rate: MinimumRate,
    pub(crate) answer_max: Duration,
}

/// State between attempts.
#[derive(Default)]
struct State {
    /// `None` if it must be opened (again).
    partial: Option<Partial>,
    /// Announced total size.
    total: Option<u64>,
    validators: Validators,
    /// Whether bytes of an earlier attempt or process are part of it.
    continued: bool,
    not_modified: bool,
}

impl<O: Origin> Download<'_, O> {
    /// Runs the download.
    pub(crate) async fn run(&self, watch: Watcher<'_>) -> Result<Outcome, FetchError> {
        let mut state = State { total: self.request.size, ..State::default() };
        let mut retries = Retries::new(self.retry);
        let (mut most, mut made_room, mut started_over) = (0, false, false);
        loop {
            let attempt = self.attempt(&mut state, watch).await;
            let bytes = state.partial.as_ref().map_or(0, |partial| partial.bytes);
            match attempt {
                Ok(()) if state.not_modified => return Ok(Outcome::NotModified),
                Ok(()) => match self.verify(&mut state).await {
                    // The continued bytes were damaged or of another version; a full download may still succeed.
                    Err(FetchError::DigestMismatch { .. }) if state.continued && !started_over => started_over = true,
                    verified => return verified,
                },
                Err(Fault::Final(error)) if error.is_full_disk() => {
                    let missing = state.total.map_or(UNKNOWN_BYTES, |total| total.saturating_sub(bytes));
                    self.after_full_disk(&mut state, missing, made_room).await?;
                    made_room = true;
                }
                Err(fault) => {
                    if bytes > most {
                        retries.progressed(bytes - most);
                        most = bytes;
                    }
                    retries.pause(fault).await?;
                }
            }
        }
    }

    async fn attempt(&self, state: &mut State, watch: Watcher<'_>) -> Result<(), Fault> {
        let partial = match state.partial.take() {
            Some(partial) => partial,
            None => self.open(watch).await?,
        };
        let partial = state.partial.insert(partial);
        if self.request.digest.is_some() && self.request.digest.as_ref() == Some(&partial.digest()) {
            return Ok(());
        }
        let resume = partial.resume(&self.request.url, self.request.digest.is_some());
        let answer = timeout(self.answer_max, self.origin.get(self.headers(&resume))).await;
        let response = answer.unwrap_or_else(|_| Err(status::late(&self.request.uri, self.answer_max)))?;
        self.prepare(state, &resume, &response).await?;
        if state.not_modified || response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(());
        }
        self.receive(state, response, watch).await
    }

    fn headers(&self, resume: &Continue) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, value: &str| {
            // A value that the server sent as a header can be sent back as one.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        // Lengths and ranges must not refer to a compressed form.
        set(header::ACCEPT_ENCODING, "identity");
        match resume {
            Continue::From(bytes, if_range) => {
                set(header::RANGE, &format!("bytes={bytes}-"));
                if_range.iter().for_each(|tag| set(header::IF_RANGE, tag));
            }
            Continue::Anew => {
                let unless = self.request.unless.iter();
                for Validators { etag, last_modified } in unless {
                    etag.iter().for_each(|tag| set(header::IF_NONE_MATCH, tag));
                    last_modified.iter().for_each(|date| set(header::IF_MODIFIED_SINCE, date));
                }
            }
        }
        headers
    }

    /// Checks an answer's head, and prepares the partial file for its body.
    async fn prepare(&self, state: &mut State, resume: &Continue, response: &Response) -> Result<(), Fault> {
        let validators = validators(response);
        let length = response.content_length();
        let Some(partial) = &mut state.partial else { return Ok(()) };
        match (response.status(), resume) {
            (StatusCode::NOT_MODIFIED, _) if self.request.unless.is_some() => {
                state.not_modified = true;
                return Ok(());
            }
            (StatusCode::PARTIAL_CONTENT, Continue::From(bytes, _)) => {
                let range = content_range(response);
                let fits = range.is_some_and(|(start, _)| start == *bytes) && partial.continues(&validators);
                if !fits {
                    return Err(self.anew(partial));
                }
                state.total = range.and_then(|(_, total)| total).or(length.map(|length| bytes + length));
                state.continued = true;
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Continue::From(bytes, _)) => {
                let whole = content_range(response).is_some_and(|(_, total)| total == Some(*bytes));
                // With a digest, a complete file would have been recognised before.
                if !whole || self.request.digest.is_some() {
                    return Err(self.anew(partial));
                }
                state.total = Some(*bytes);
                state.continued = true;
            }
            (StatusCode::OK, _) => {
                self.restart(partial, &validators)?;
                state.total = length.or(self.request.size);
                state.continued = false;
            }
            _ => return Err(status::fault(&self.request.uri, &self.request.name, response)),
        }
        state.validators = validators;
        let have = partial.bytes;
        self.reserve(state.total, have).await.map_err(Fault::from)
    }

    /// Checks the announced length, and makes room in the cache.
    async fn reserve(&self, total: Option<u64>, have: u64) -> Result<(), FetchError> {
        let Some(total) = total else { return Ok(()) };
        if let Some(expected) = self.request.size.filter(|expected| *expected != total) {
            return Err(self.truncated(expected, total));
        }
        self.within(total)?;
        let (key, missing) = (self.key.to_owned(), total.saturating_sub(have));
        match blocking(self.cache, &self.request.uri, move |cache| cache.make_room(missing, &key)).await? {
            Room::Made => Ok(()),
            Room::InUse => Err(FetchError::CacheFull {
                uri: self.request.uri.clone(),
                dir: self.cache.dir.clone(),
                bytes: missing,
                limit: self.cache.bytes_max,
            }),
        }
    }

    async fn receive(&self, state: &mut State, mut response: Response, watch: Watcher<'_>) -> Result<(), Fault> {
        let Some(partial) = state.partial.take() else { return Ok(()) };
        let mut bytes = partial.bytes;
        let (chunks, arriving) = mpsc::channel(CHUNKS_WAITING);
        // A thread hashes and writes. It ends with `chunks`, even if this fetch is dropped.
        let writer = tokio::task::spawn_blocking(move || partial.append(arriving));
        watch(Progress::of(Phase::Downloading, bytes, state.total));
        let (mut received, mut rate) = (Ok(()), Rate::new(self.rate));
        loop {
            let asked = Instant::now();
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    bytes += chunk.len() as u64;
                    received = self.bounded(bytes, state.total).map_err(Fault::from);
                    if received.is_ok() && !rate.suffices(chunk.len(), asked.elapsed()) {
                        received = Err(status::slow(&self.request.uri, self.rate.bytes_per_second));
                    }
                    if received.is_err() || chunks.send(chunk).await.is_err() {
                        break;
                    }
                    watch(Progress::of(Phase::Downloading, bytes, state.total));
                }
                Ok(None) => break,
                Err(error) => {
                    received = Err(self.broken(bytes, state.total, &error));
                    break;
                }
            }
        }
        drop(chunks);
        let io = |error| FetchError::io(&self.request.uri, &self.request.path, error);
        let (partial, written) = writer.await.map_err(|error| io(std::io::Error::other(error)))?;
        state.partial = Some(partial);
        written.map_err(io)?;
        received?;
        match state.total {
            Some(total) if bytes != total => Err(Fault::passing(self.truncated(total, bytes))),
            _ => Ok(()),
        }
    }

    /// Verifies the digest; a file that fails it is removed.
    async fn verify(&self, state: &mut State) -> Result<Outcome, FetchError> {
        let Some(partial) = state.partial.take() else { return Ok(Outcome::NotModified) };
        let digest = partial.digest();
        let expected = self.request.digest.clone().unwrap_or_else(|| digest.clone());
        let right = digest == expected;
        let settle = move |_: &Cache| if right { partial.complete() } else { partial.remove() };
        blocking(self.cache, &self.request.uri, settle).await?;
        if right {
            return Ok(Outcome::Arrived { digest, validators: std::mem::take(&mut state.validators) });
        }
        Err(FetchError::DigestMismatch {
            uri: self.request.uri.clone(),
            file: self.request.name.clone(),
            expected: format!("sha256:{expected}"),
            actual: format!("sha256:{digest}"),
        })
    }

    /// # Errors
    /// Nothing could be evicted, or an eviction was tried before.
    async fn after_full_disk(&self, state: &mut State, missing: u64, again: bool) -> Result<(), FetchError> {
        let uri = &self.request.uri;
        let key = self.key.to_owned();
        let freed =
            if again { 0 } else { blocking(self.cache, uri, move |cache| cache.free_up(missing, &key)).await? };
        if freed > 0 {
            return Ok(());
        }
        // A partial file would only keep the disk full for all users of the cache.
        if let Some(partial) = state.partial.take() {
            blocking(self.cache, uri, move |_| partial.remove()).await?;
        }
        Err(FetchError::DiskFull { uri: uri.clone(), dir: self.cache.dir.clone(), bytes: missing })
    }

    async fn open(&self, watch: Watcher<'_>) -> Result<Partial, FetchError> {
        let (path, job) = (self.request.path.clone(), self.job.clone());
        let (tell, mut told) = mpsc::unbounded_channel();
        let opening = blocking(self.cache, &self.request.uri, move |_| {
            Partial::open(path, job, |bytes| {
                let _ = tell.send(bytes);
            })
        });
        tokio::pin!(opening);
        loop {
            tokio::select! {
                Some(bytes) = told.recv() => watch(Progress::of(Phase::Verifying, bytes, None)),
                opened = &mut opening => return opened,
            }
        }
    }

    fn restart(&self, partial: &mut Partial, validators: &Validators) -> Result<(), FetchError> {
        // One truncation and one small file: not worth a thread.
        let io = |error| FetchError::io(&self.request.uri, &self.request.path, error);
        partial.restart(&self.request.url, validators).map_err(io)
    }

    fn anew(&self, partial: &mut Partial) -> Fault {
        self.restart(partial, &Validators::default()).map_or_else(Fault::Final, |()| Fault::Anew)
    }

    fn bounded(&self, bytes: u64, total: Option<u64>) -> Result<(), FetchError> {
        match total.or(self.request.size) {
            Some(total) if bytes > total => Err(self.truncated(total, bytes)),
            _ => self.within(bytes),
        }
    }

    fn within(&self, bytes: u64) -> Result<(), FetchError> {
        let limit = self.cache.bytes_max;
        if bytes <= limit {
            return Ok(());
        }
        Err(FetchError::TooLarge { uri: self.request.uri.clone(), bytes, limit })
    }

    fn broken(&self, bytes: u64, total: Option<u64>, error: &reqwest::Error) -> Fault {
        match total {
            Some(total) if !error.is_timeout() => Fault::passing(self.truncated(total, bytes)),
            _ => status::no_answer(&self.request.uri, error),
        }
    }

    fn truncated(&self, expected: u64, actual: u64) -> FetchError {
        FetchError::Truncated { uri: self.request.uri.clone(), file: self.request.name.clone(), expected, actual }
    }
}

/// Start and total of `bytes START-END/TOTAL` or `bytes */TOTAL`; `*` is an unknown total.
fn content_range(response: &Response) -> Option<(u64, Option<u64>)> {
    parse_content_range(response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?)
}

fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = if range == "*" { 0 } else { range.split_once('-')?.0.parse().ok()? };
    Some((start, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("bytes 7-9/10"), Some((7, Some(10))));
        assert_eq!(parse_content_range("bytes 7-9/*"), Some((7, None)));
        assert_eq!(parse_content_range("bytes */10"), Some((0, Some(10))));
        assert_eq!(parse_content_range("items 1-2/3"), None);
    }

    #[test]
    fn only_strong_validators_continue() {
        let validators = |etag: Option<&str>, date: Option<&str>| Validators {
            etag: etag.map(str::to_owned),
            last_modified: date.map(str::to_owned),
        };
        for (etag, date, expected) in [
            (Some("\"a\""), Some("date"), Some("\"a\"")),
            (None, Some("date"), Some("date")),
            (Some("W/\"a\""), Some("date"), None),
            (None, None, None),
        ] {
            assert_eq!(validators(etag, date).if_range().as_deref(), expected);
        }
    }
}

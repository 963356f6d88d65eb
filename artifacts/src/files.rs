//! Several files of one version of a remote place: a commit of a Hub's repository, or what a bucket has now.
//!
//! A place is resolved to a version, whose files never change. The files that a model needs are chosen (`select`), downloaded one
//! after the other, and kept under the digest of all of them.

pub(crate) mod select;

use std::{fs, io, path::Path};

use reqwest::{Response, header::HeaderMap};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::{
    Artifact, FetchError, Progress,
    cache::{blocking, entry::Entry, entry_key, job::Job, refs::Ref, refs::hashed},
    http::{
        download::{Download, DownloadRequest, Origin, Outcome},
        retry::{Fault, RetryPolicy},
    },
    part::{Becomes, Part},
    progress::{Phase, Watcher},
    request::Request,
    stage::concluded,
    validators::Validators,
};
use select::{Selection, select};

/// A file of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// Path within the place.
    pub(crate) path: String,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// What its bytes must be.
    pub(crate) check: Check,
    /// The server's name of this version of the file, such as its ETag, if it has one.
    pub(crate) version: Option<String>,
}

/// What the listing says of the bytes of a file, as hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Check {
    /// SHA-256 of the bytes.
    Sha256(String),
    /// SHA-1 of git's blob.
    Git(String),
    /// Nothing: the length and the connection are all there is.
    #[default]
    Unknown,
}

/// A remote place with files.
pub(crate) trait FileSource: Sync {
    /// What messages call the place.
    fn subject(&self) -> &str;

    /// A folder of it, a file, or a file's name with `*`; empty: everything.
    fn path(&self) -> &str;

    /// The name of a version among the references of the cache; `None` for the present one, whichever it is.
    fn name(&self, version: Option<&str>) -> String;

    /// The present version.
    fn version(&self, retry: RetryPolicy) -> impl Future<Output = Result<String, FetchError>> + Send;

    /// All files of a version, in order of their paths.
    fn files(&self, version: &str) -> impl Future<Output = Result<Vec<RemoteFile>, FetchError>> + Send;

    /// Where a file of a version is.
    fn url(&self, version: &str, file: &RemoteFile) -> Result<String, FetchError>;

    /// Sends one request for it, and gives its answer whatever the status.
    fn get(
        &self,
        version: &str,
        file: &RemoteFile,
        headers: HeaderMap,
    ) -> impl Future<Output = Result<Response, Fault>> + Send;
}

/// A file as the origin of a download.
struct FileOrigin<'a, S> {
    source: &'a S,
    version: &'a str,
    file: &'a RemoteFile,
}

impl<S: FileSource> Origin for FileOrigin<'_, S> {
    async fn get(&self, headers: HeaderMap) -> Result<Response, Fault> {
        self.source.get(self.version, self.file, headers).await
    }
}

/// Whether `path` is one of a file within a folder, whatever it is joined to.
pub(crate) fn is_path(path: &str) -> bool {
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\\', '\0']);
    !path.split('/').any(bad)
}

/// Whether `path` has a `*` in the name of a folder. Only its last part may have it.
pub(crate) fn has_star_in_folder(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(folder, _)| folder.contains('*'))
}

/// A fetch of files.
pub(crate) struct Files<'a, S> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) source: &'a S,
}

impl<S: FileSource> Files<'_, S> {
    /// The files of the version `fixed`, or of the present one.
    pub(crate) async fn fetch(&self, fixed: Option<&str>, watch: Watcher<'_>) -> Result<Artifact, FetchError> {
        if let Some(digest) = &self.request.digest
            && let Some(entry) = self.request.cached(&entry_key(digest, false)).await?
        {
            return Ok(Artifact::cached(entry, false));
        }
        match fixed {
            Some(version) => self.at(version, watch).await.map(|entry| Artifact::cached(entry, false)),
            None => self.latest(watch).await,
        }
    }

    /// The present version, or the last known one if the server is unreachable.
    async fn latest(&self, watch: Watcher<'_>) -> Result<Artifact, FetchError> {
        watch(Progress::of(Phase::Resolving, 0, None));
        let name = self.source.name(None);
        let known = self.known(&name).await?;
        let retry = self.request.tools.retry;
        let retry = if known.is_some() { retry.hurried() } else { retry };
        match (self.current(name, retry, watch).await, known) {
            (Ok(entry), _) => Ok(Artifact::cached(entry, false)),
            (Err(error @ FetchError::Unreachable { .. }), Some(entry)) => {
                tracing::info!(%error, "using what was fetched before");
                Ok(Artifact::cached(entry, true))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn current(&self, name: String, retry: RetryPolicy, watch: Watcher<'_>) -> Result<Entry, FetchError> {
        let version = self.source.version(retry).await?;
        let entry = self.at(&version, watch).await?;
        self.remember(name, &entry).await;
        Ok(entry)
    }

    /// What a version has. Without a network if it was fetched before.
    async fn at(&self, version: &str, watch: Watcher<'_>) -> Result<Entry, FetchError> {
        let name = self.source.name(Some(version));
        if let Some(entry) = self.known(&name).await? {
            return self.expected(entry);
        }
        let (cache, uri) = (&self.request.tools.cache, self.request.uri);
        let key = format!("files-{}", hashed(&name));
        let job = Job::begin(cache, &key, uri, watch).await?;
        // The previous holder of the job may have fetched it.
        let result = match self.known(&name).await {
            Ok(Some(entry)) => self.expected(entry),
            Ok(None) => self.make(&job, &key, version, watch).await,
            Err(error) => Err(error),
        };
        let entry = concluded(job, cache, uri, result).await?;
        self.remember(name, &entry).await;
        Ok(entry)
    }

    async fn make(&self, job: &Job, key: &str, version: &str, watch: Watcher<'_>) -> Result<Entry, FetchError> {
        watch(Progress::of(Phase::Resolving, 0, None));
        let files = self.source.files(version).await?;
        let Selection { root, files } = select(&files, self.source.path()).map_err(|message| self.unfit(&message))?;
        let total = files.iter().map(|file| file.bytes).sum();
        self.request.reserve(job, key, total).await?;
        let (mut parts, mut digests, mut before) = (Vec::new(), Vec::new(), 0);
        for file in &files {
            let mut whole = |progress: Progress| match progress.phase {
                Phase::Downloading | Phase::Verifying => {
                    watch(Progress::of(progress.phase, before + progress.done, total));
                }
                _ => watch(progress),
            };
            let (part, digest) = self.download(job, key, (version, file), root, &mut whole).await?;
            digests.push((part.name.clone(), digest));
            parts.push(part);
            before += file.bytes;
        }
        let digest = digest_of(&digests, self.source.path() == files.first().map_or("", |file| file.path.as_str()));
        self.check(&digest)?;
        match self.request.cached(&entry_key(&digest, false)).await? {
            Some(entry) => Ok(entry),
            None => self.request.stage(job, &entry_key(&digest, false), &digest, parts, watch).await,
        }
    }

    async fn download(
        &self,
        job: &Job,
        key: &str,
        (version, file): (&str, &RemoteFile),
        root: &str,
        watch: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(Part, String), FetchError> {
        let store = self.request.tools;
        let (origin, url) = (FileOrigin { source: self.source, version, file }, self.source.url(version, file)?);
        let path = job.dir().join(format!("file-{}", hashed(&file.path)));
        let request = DownloadRequest {
            uri: self.request.uri.to_owned(),
            name: file.path.clone(),
            url,
            path: path.clone(),
            digest: match &file.check {
                Check::Sha256(digest) => Some(digest.clone()),
                Check::Git(_) | Check::Unknown => None,
            },
            size: Some(file.bytes),
            unless: None,
        };
        let (cache, retry, rate, answer_max) = (&store.cache, store.retry, store.rate, store.answer_max);
        let download = Download { origin: &origin, request: &request, cache, job, key, retry, rate, answer_max };
        let Outcome::Arrived { digest, .. } = download.run(watch).await? else {
            let message = format!("{}: the server answers 304 (not modified) to an unconditional request", file.path);
            return Err(FetchError::Refused { uri: self.request.uri.to_owned(), message });
        };
        if let Check::Git(expected) = &file.check {
            self.check_blob(path.clone(), file, expected).await?;
        }
        let name = file.path[root.len()..].to_owned();
        let becomes = Becomes::File(name.clone().into());
        Ok((Part { from: path, name, becomes }, digest))
    }

    /// Compares a small file with git's digest of it.
    async fn check_blob(&self, path: std::path::PathBuf, file: &RemoteFile, expected: &str) -> Result<(), FetchError> {
        let (uri, bytes) = (self.request.uri, file.bytes);
        let actual = blocking(&self.request.tools.cache, uri, move |_| {
            let actual = git_blob(&path, bytes)?;
            Ok((actual, path))
        });
        let (actual, path) = actual.await?;
        if actual == expected {
            return Ok(());
        }
        // Kept, it would be taken for the beginning of the right one.
        blocking(&self.request.tools.cache, uri, move |_| fs::remove_file(path)).await?;
        Err(FetchError::DigestMismatch {
            uri: uri.to_owned(),
            file: file.path.clone(),
            expected: format!("git:{expected}"),
            actual: format!("git:{actual}"),
        })
    }

    fn expected(&self, entry: Entry) -> Result<Entry, FetchError> {
        self.check(entry.index.digest.trim_start_matches("sha256:")).map(|()| entry)
    }

    /// Compares with the digest that the source names.
    fn check(&self, actual: &str) -> Result<(), FetchError> {
        match &self.request.digest {
            Some(expected) if expected != actual => Err(FetchError::DigestMismatch {
                uri: self.request.uri.to_owned(),
                file: self.source.path().to_owned(),
                expected: format!("sha256:{expected}"),
                actual: format!("sha256:{actual}"),
            }),
            _ => Ok(()),
        }
    }

    fn unfit(&self, message: &str) -> FetchError {
        let message = format!("{} {message}", self.source.subject());
        FetchError::NotFound { uri: self.request.uri.to_owned(), message }
    }

    async fn known(&self, name: &str) -> Result<Option<Entry>, FetchError> {
        let name = name.to_owned();
        blocking(&self.request.tools.cache, self.request.uri, move |cache| match cache.read_ref(&name) {
            Some(known) => cache.lookup(&known.key),
            None => Ok(None),
        })
        .await
    }

    async fn remember(&self, name: String, entry: &Entry) {
        let key = entry_key(entry.index.digest.trim_start_matches("sha256:"), false);
        let to = Ref { source: self.request.uri.to_owned(), key, validators: Validators::default() };
        self.request.remember(name, to).await;
    }
}

/// The digest of one file that was named, or of several: that of what `sha256sum` prints of them in order of their names.
fn digest_of(files: &[(String, String)], is_named: bool) -> String {
    match files {
        [(_, digest)] if is_named => digest.clone(),
        several => {
            let lines: String = several.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
            hex::encode(Sha256::digest(lines.as_bytes()))
        }
    }
}

/// git's digest of a file's content.
fn git_blob(path: &Path, bytes: u64) -> io::Result<String> {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {bytes}\0"));
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let files = [("a".to_owned(), "00".to_owned()), ("b/c".to_owned(), "11".to_owned())];
        assert_eq!(digest_of(&files[..1], true), "00");
        let listed = hex::encode(Sha256::digest("00  a\n11  b/c\n"));
        assert_eq!(digest_of(&files, false), listed);
        assert_ne!(digest_of(&files[..1], false), "00");
    }

    #[test]
    fn blobs_are_named_as_git_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "hello\n").unwrap();
        // `printf 'hello\n' | git hash-object --stdin`
        assert_eq!(git_blob(&path, 6).unwrap(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}

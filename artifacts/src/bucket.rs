//! `s3://`, `gs://` and `az://`: models and adapters in buckets.
//!
//! `client` speaks to the service. A bucket has no commits: the version of what a path names is a hash of the names, sizes and ETags
//! of its files, and each file is downloaded on condition that it still has that ETag.

mod client;

use std::sync::{Mutex, PoisonError};

use reqwest::{Response, header::HeaderMap};
use sha2::{Digest as _, Sha256};

use crate::{
    Artifact, FetchError,
    bucket_reference::BucketReference,
    files::{FileSource, Files, RemoteFile, select::select},
    http::retry::{Fault, RetryPolicy},
    progress::Watcher,
    request::Request,
};
use client::Bucket;

/// Fetches files of a bucket.
pub(crate) async fn fetch(
    request: Request<'_>,
    reference: &BucketReference,
    watch: Watcher<'_>,
) -> Result<Artifact, FetchError> {
    let bucket = Bucket::new(&request, reference)?;
    let place = Place { request: &request, bucket: &bucket, reference, listed: Mutex::default() };
    Files { request: &request, source: &place }.fetch(None, watch).await
}

struct Place<'a> {
    request: &'a Request<'a>,
    bucket: &'a Bucket,
    reference: &'a BucketReference,
    /// The last listing, and its version.
    listed: Mutex<(String, Vec<RemoteFile>)>,
}

impl FileSource for Place<'_> {
    fn subject(&self) -> &str {
        &self.reference.bucket
    }

    fn path(&self) -> &str {
        &self.reference.path
    }

    fn name(&self, version: Option<&str>) -> String {
        format!("{}{}@{}", self.bucket.server(), self.reference, version.unwrap_or("latest"))
    }

    async fn version(&self, retry: RetryPolicy) -> Result<String, FetchError> {
        let files = self.bucket.list(self.reference, retry).await?;
        // Other files of the bucket may change as they like.
        let chosen = select(&files, &self.reference.path).map_err(|message| {
            let message = format!("{} {message}", self.reference.bucket);
            FetchError::NotFound { uri: self.request.uri.to_owned(), message }
        })?;
        let version = version_of(&chosen.files);
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = (version.clone(), files);
        Ok(version)
    }

    async fn files(&self, version: &str) -> Result<Vec<RemoteFile>, FetchError> {
        let (listed, files) = &*self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed == version {
            return Ok(files.clone());
        }
        let message = "changed while it was fetched; fetch it again".to_owned();
        Err(FetchError::Unreachable { uri: self.request.uri.to_owned(), message })
    }

    fn url(&self, _version: &str, file: &RemoteFile) -> Result<String, FetchError> {
        let version = file.version.as_deref().unwrap_or_default();
        Ok(format!("{}{}#{version}", self.bucket.server(), file.path))
    }

    async fn get(&self, _version: &str, file: &RemoteFile, headers: HeaderMap) -> Result<Response, Fault> {
        self.bucket.get(file, &headers).await
    }
}

/// A hash of the names, sizes and ETags of files.
fn version_of(files: &[&RemoteFile]) -> String {
    let mut hasher = Sha256::new();
    for file in files {
        let version = file.version.as_deref().unwrap_or_default();
        hasher.update(format!("{}\0{}\0{version}\n", file.path, file.bytes));
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_its_files_are() {
        let file = |path: &str, bytes, etag: &str| RemoteFile {
            path: path.to_owned(),
            bytes,
            version: Some(etag.to_owned()),
            ..RemoteFile::default()
        };
        let one = version_of(&[&file("a", 1, "x")]);
        assert_eq!(one, version_of(&[&file("a", 1, "x")]));
        for other in [file("b", 1, "x"), file("a", 2, "x"), file("a", 1, "y")] {
            assert_ne!(one, version_of(&[&other]));
        }
    }
}

//! The client of a bucket: object_store's for each service, whose bytes become those of a download.

use std::{collections::HashSet, fs, sync::Arc, time::Duration};

use futures::TryStreamExt as _;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
    path::Path,
};
use reqwest::{
    Body, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, RANGE},
};

use crate::{
    FetchError,
    bucket_reference::{BucketReference, Service},
    credentials::Secret,
    files::{Check, RemoteFile},
    http::{
        retry::{Fault, Retries, RetryPolicy},
        status,
    },
    request::Request,
};

/// Files of a listing.
const FILES_MAX: usize = 100_000;
const CONNECT: Duration = Duration::from_secs(10);
/// Characters of a service's own words in a message.
const SAID_MAX: usize = 300;

/// Client of one bucket.
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    uri: String,
    name: String,
    /// The server, if it is not the service's own.
    server: String,
    answer_max: Duration,
}

impl Bucket {
    pub(super) fn new(request: &Request<'_>, reference: &BucketReference) -> Result<Self, FetchError> {
        let bad = |error: Error| FetchError::bad(request.uri, said(&error));
        let options = client_options(request)?;
        // Attempts are counted where those of all sources are.
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let name = &reference.bucket;
        let secret = request.source.credentials.as_ref().and_then(|all| all.of(name, ""));
        let mut server = String::new();
        let store: Arc<dyn ObjectStore> = match reference.service {
            Service::S3 => {
                let builder = s3(request, secret)?;
                server = builder.get_config_value(&AmazonS3ConfigKey::Endpoint).unwrap_or_default();
                let plain = plain_endpoint(request, &server)?;
                let options = options.with_allow_http(plain);
                let builder = builder.with_bucket_name(name).with_client_options(options).with_retry(retry);
                Arc::new(builder.build().map_err(bad)?)
            }
            Service::Gcs => {
                let builder = GoogleCloudStorageBuilder::from_env();
                let builder = match secret {
                    None => builder,
                    Some(Secret::Bearer(key)) => builder.with_service_account_key(key),
                    Some(_) => return Err(wrong_secret(request, "token: the JSON key of a service account")),
                };
                let builder = builder.with_bucket_name(name).with_client_options(options).with_retry(retry);
                Arc::new(builder.build().map_err(bad)?)
            }
            Service::Azure => {
                let builder = MicrosoftAzureBuilder::from_env();
                let builder = match secret {
                    None => builder,
                    Some(Secret::Basic { username, password }) => {
                        builder.with_account(username).with_access_key(password)
                    }
                    Some(_) => {
                        return Err(wrong_secret(
                            request,
                            "username: the storage account, and password: its access key",
                        ));
                    }
                };
                let builder = builder.with_container_name(name).with_client_options(options).with_retry(retry);
                Arc::new(builder.build().map_err(bad)?)
            }
        };
        let (uri, name, answer_max) = (request.uri.to_owned(), name.clone(), request.tools.answer_max);
        Ok(Self { store, uri, name, server, answer_max })
    }

    /// The server, for the names of what was fetched.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// All files that the path of `reference` may name, in order of their paths.
    pub(super) async fn list(
        &self,
        reference: &BucketReference,
        retry: RetryPolicy,
    ) -> Result<Vec<RemoteFile>, FetchError> {
        let mut retries = Retries::new(retry);
        loop {
            let answer = tokio::time::timeout(self.answer_max, self.try_list(reference)).await;
            match answer.unwrap_or_else(|_| Err(status::late(&self.uri, self.answer_max))) {
                Ok(files) => return Ok(files),
                Err(fault) => retries.pause(fault).await?,
            }
        }
    }

    async fn try_list(&self, reference: &BucketReference) -> Result<Vec<RemoteFile>, Fault> {
        let folder = self.path(reference.listed())?;
        let mut listed = self.store.list(Some(&folder).filter(|folder| !folder.as_ref().is_empty()));
        let mut files = Vec::new();
        while let Some(meta) = listed.try_next().await.map_err(|error| self.fault("such folder", &error))? {
            if files.len() == FILES_MAX {
                let message = format!("{} has more than {FILES_MAX} files there; name a folder of it", self.name);
                return Err(FetchError::Refused { uri: self.uri.clone(), message }.into());
            }
            files.push(file(meta));
        }
        without_folders(&mut files, folder.as_ref());
        if files.is_empty() && !reference.path.is_empty() && !reference.path.contains('*') {
            let meta = self.store.head(&folder).await;
            let what = format!("file or folder {}", reference.path);
            files.push(file(meta.map_err(|error| self.fault(&what, &error))?));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Asks for a file, from the offset that `headers` name, on condition that it is still the listed one.
    pub(super) async fn get(&self, file: &RemoteFile, headers: &HeaderMap) -> Result<Response, Fault> {
        let from = headers.get(RANGE).and_then(|range| range.to_str().ok()).and_then(offset);
        if from.is_some_and(|from| from >= file.bytes) {
            return Ok(whole(file.bytes));
        }
        let (path, if_match) = (self.path(&file.path)?, file.version.clone());
        let options = GetOptions { if_match, range: from.map(GetRange::Offset), ..GetOptions::default() };
        match self.store.get_opts(&path, options).await {
            Ok(result) => response(result, from.is_some()).map_err(|error| FetchError::bad(&self.uri, error).into()),
            Err(error) => Err(self.fault(&format!("file {path}"), &error)),
        }
    }

    fn path(&self, path: &str) -> Result<Path, FetchError> {
        Path::parse(path).map_err(|error| FetchError::bad(&self.uri, error.to_string()))
    }

    fn fault(&self, what: &str, error: &Error) -> Fault {
        let (uri, name) = (self.uri.clone(), &self.name);
        match error {
            Error::NotFound { .. } => FetchError::NotFound { uri, message: format!("{name} has no {what}") }.into(),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                FetchError::Unauthorized { uri, message: format!("{name}: access is denied: {}", said(error)) }.into()
            }
            Error::InvalidPath { .. } => {
                let message = format!("{name} has a file there whose name cannot be one on a disk: {}", said(error));
                FetchError::Refused { uri, message }.into()
            }
            Error::Precondition { .. } => {
                let message = format!("{what} changed while it was fetched; fetch it again");
                FetchError::Unreachable { uri, message }.into()
            }
            _ => match status_of(&error.to_string()) {
                Some(401 | 403) => {
                    let message = format!("{name}: access is denied: {}", said(error));
                    FetchError::Unauthorized { uri, message }.into()
                }
                Some(404) => FetchError::NotFound { uri, message: format!("{name}: {}", said(error)) }.into(),
                _ => Fault::passing(FetchError::Unreachable { uri, message: format!("{name}: {}", said(error)) }),
            },
        }
    }
}

/// Options of every service's client.
fn client_options(request: &Request<'_>) -> Result<ClientOptions, FetchError> {
    // A download's time is bounded by its rate.
    let mut options = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout_disabled();
    if let Some(path) = &request.tools.buckets.ca_file {
        let pem = fs::read(path).map_err(|error| FetchError::io("CA file", path, error))?;
        let bad = |error: Error| FetchError::bad(&path.display().to_string(), said(&error));
        for certificate in object_store::Certificate::from_pem_bundle(&pem).map_err(bad)? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

/// The client of S3 before its bucket is named: with the source's own keys, or what the environment has.
fn s3(request: &Request<'_>, secret: Option<Secret>) -> Result<AmazonS3Builder, FetchError> {
    let ambient = AmazonS3Builder::from_env();
    let mut builder = match secret {
        None => ambient,
        // Nothing of another identity is mixed with them.
        Some(Secret::Basic { username, password }) => {
            let mut own = AmazonS3Builder::new().with_access_key_id(username).with_secret_access_key(password);
            let kept = [
                AmazonS3ConfigKey::Endpoint,
                AmazonS3ConfigKey::Region,
                AmazonS3ConfigKey::DefaultRegion,
                AmazonS3ConfigKey::VirtualHostedStyleRequest,
            ];
            for key in kept {
                if let Some(value) = ambient.get_config_value(&key) {
                    own = own.with_config(key, value);
                }
            }
            own
        }
        Some(_) => {
            return Err(wrong_secret(request, "username: the access key's id, and password: the secret access key"));
        }
    };
    if let Some(endpoint) = &request.tools.buckets.s3_endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    Ok(builder)
}

/// Whether the endpoint is reached without TLS.
///
/// # Errors
/// It is none, or has to be reached by TLS.
fn plain_endpoint(request: &Request<'_>, endpoint: &str) -> Result<bool, FetchError> {
    if endpoint.is_empty() {
        return Ok(false);
    }
    let url = Url::parse(endpoint).ok().filter(Url::has_host);
    let url = url.ok_or_else(|| {
        FetchError::bad(
            request.uri,
            format!("the S3 endpoint `{endpoint}` is no http or https URL; correct AWS_ENDPOINT_URL"),
        )
    })?;
    request.tools.plain.check(request.uri, &url)?;
    Ok(url.scheme() == "http")
}

fn wrong_secret(request: &Request<'_>, expected: &str) -> FetchError {
    let message = format!("its credentials are of another kind; the Secret has to have {expected}");
    FetchError::Unauthorized { uri: request.uri.to_owned(), message }
}

/// Takes out what stands for a folder: an empty object of its name, as consoles make them.
fn without_folders(files: &mut Vec<RemoteFile>, listed: &str) {
    let parents = |path: &str| path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect::<Vec<_>>();
    let folders: HashSet<String> = files.iter().flat_map(|file| parents(&file.path)).collect();
    files.retain(|file| file.bytes > 0 || !(file.path == listed || folders.contains(&file.path)));
}

fn file(meta: ObjectMeta) -> RemoteFile {
    RemoteFile { path: meta.location.to_string(), bytes: meta.size, check: Check::Unknown, version: meta.e_tag }
}

/// The offset of `bytes=OFFSET-`.
fn offset(range: &str) -> Option<u64> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// The answer to a request beyond the end of a file of so many bytes.
fn whole(bytes: u64) -> Response {
    let mut response = http::Response::new(Body::default());
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    if let Ok(range) = format!("bytes */{bytes}").parse() {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response.into()
}

/// The answer of a service, as that of a web server.
fn response(result: GetResult, partial: bool) -> Result<Response, String> {
    let (range, size) = (result.range.clone(), result.meta.size);
    let mut builder = http::Response::builder();
    builder = match partial {
        true => builder
            .status(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))),
        false => builder.status(StatusCode::OK),
    };
    if let Some(etag) = &result.meta.e_tag {
        builder = builder.header(ETAG, etag);
    }
    let builder = builder.header(CONTENT_LENGTH, range.end.saturating_sub(range.start));
    let body = Body::wrap_stream(result.into_stream().map_err(|error| said(&error)));
    builder.body(body).map(Response::from).map_err(|error| error.to_string())
}

/// The status that a service answered with. The library gives it in words alone.
fn status_of(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// What a service or its client says, in bounds: of an answer in XML its code and message, and never what was signed.
fn said(error: &Error) -> String {
    let text = match error {
        Error::Generic { source, .. }
        | Error::PermissionDenied { source, .. }
        | Error::Unauthenticated { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(content, _)| content)
    };
    let answer = match element("Code").zip(element("Message")) {
        Some((code, message)) => format!("{code}: {message}"),
        None => text.split("<?xml").next().unwrap_or_default().to_owned(),
    };
    let line = answer.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_no_files() {
        let file = |path: &str, bytes| RemoteFile { path: path.to_owned(), bytes, ..RemoteFile::default() };
        let mut files = vec![file("a", 0), file("a/b", 0), file("a/b/c", 1), file("a/empty", 0), file("d", 0)];
        without_folders(&mut files, "d");
        assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a/b/c", "a/empty"]);
    }

    #[test]
    fn what_a_service_says() {
        let text = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?> <Error><Code>SignatureDoesNotMatch\
                    </Code><Message>The signature is wrong.</Message><StringToSign>s3cret</StringToSign></Error>";
        let error = Error::Generic { store: "S3", source: text.into() };
        assert_eq!(status_of(&error.to_string()), Some(403));
        assert_eq!(said(&error), "SignatureDoesNotMatch: The signature is wrong.");
        let plain = Error::Generic { store: "S3", source: "connection refused".into() };
        assert_eq!((status_of(&plain.to_string()), said(&plain).as_str()), (None, "connection refused"));
    }

    #[test]
    fn ranges() {
        assert_eq!(offset("bytes=17-"), Some(17));
        assert_eq!((offset("bytes=1-2"), offset("lines=1-"), offset("bytes=x-")), (None, None, None));
        let response = whole(5);
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes */5");
    }
}

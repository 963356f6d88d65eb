//! OCI registry client: requests to one repository, and their authorization.

use std::sync::{Mutex, PoisonError};

use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use sha2::{Digest as _, Sha256};

use super::{manifest, manifest::Manifest, token};
use crate::{
    FetchError,
    authorization::authorization,
    credentials::Secret,
    http::{
        download::Origin,
        retry::{Fault, Retries, RetryPolicy},
        status,
    },
    oci_reference::OciReference,
    request::Request,
};

/// Size limit of a manifest, larger than any registry accepts.
const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Client of one repository.
pub(super) struct Registry<'a> {
    pub(super) request: &'a Request<'a>,
    /// `…/v2/REPOSITORY/`.
    base: Url,
    pub(super) repository: &'a str,
    pub(super) secret: Option<Secret>,
    /// Authorization that answered the last challenge.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Registry<'a> {
    pub(super) fn new(request: &'a Request<'a>, reference: &'a OciReference) -> Result<Self, FetchError> {
        let (host, repository) = (reference.api_host(), reference.repository());
        let scheme = if request.tools.plain.contains(host) { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{repository}/"))
            .map_err(|error| FetchError::bad(request.uri, format!("{host} is not a host: {error}")))?;
        let secret = request.source.credentials.as_ref().and_then(|all| all.of(reference.host(), repository));
        // A token is sent at once. A password waits for the registry's challenge.
        let first = match &secret {
            Some(token @ Secret::Bearer(_)) => Some(authorization(request.uri, token)?),
            _ => None,
        };
        Ok(Self { request, base, repository, secret, authorization: Mutex::new(first) })
    }

    /// The manifest of a tag or of a digest (`sha256:HEX`), verified if it is a digest.
    pub(super) async fn manifest(&self, reference: &str, retry: RetryPolicy) -> Result<Manifest, FetchError> {
        let mut retries = Retries::new(retry);
        let manifest = loop {
            let limit = self.request.tools.answer_max;
            let answer = tokio::time::timeout(limit, self.try_manifest(reference)).await;
            match answer.unwrap_or_else(|_| Err(status::late(self.request.uri, limit))) {
                Ok(manifest) => break manifest,
                Err(fault) => retries.pause(fault).await?,
            }
        };
        let actual = format!("sha256:{}", manifest.digest);
        if reference.starts_with("sha256:") && reference != actual {
            return Err(FetchError::DigestMismatch {
                uri: self.request.uri.to_owned(),
                file: "the manifest".to_owned(),
                expected: reference.to_owned(),
                actual,
            });
        }
        Ok(manifest)
    }

    async fn try_manifest(&self, reference: &str) -> Result<Manifest, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(manifest::ACCEPT));
        let response = self.get(&format!("manifests/{reference}"), headers).await?;
        if response.status() != StatusCode::OK {
            return Err(status::fault(self.request.uri, &format!("manifest {reference}"), &response));
        }
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = content_type.map(|value| value.split(';').next().unwrap_or(value).trim().to_owned());
        let body = self.body(response, MANIFEST_BYTES_MAX).await?;
        Ok(Manifest { digest: hex::encode(Sha256::digest(&body)), body, content_type })
    }

    /// A blob as an origin of a download.
    pub(super) fn blob(&'a self, digest: &str) -> Blob<'a> {
        Blob { registry: self, path: format!("blobs/sha256:{digest}") }
    }

    /// URL of a path, as the origin of a partial download.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a request, answering the registry's challenge if possible.
    async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response, Fault> {
        let uri = self.request.uri;
        let url = self.base.join(path).map_err(|error| FetchError::bad(uri, error.to_string()))?;
        let response = self.send(&url, headers.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges: Vec<String> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        match token::answer(self, &challenges).await? {
            Some(value) => {
                self.remember(value);
                self.send(&url, headers).await
            }
            None => Ok(response),
        }
    }

    async fn send(&self, url: &Url, headers: HeaderMap) -> Result<Response, Fault> {
        let mut request = self.request.tools.client.get(url.clone()).headers(headers);
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(|error| status::no_answer(self.request.uri, &error))
    }

    fn remember(&self, value: HeaderValue) {
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    /// Reads a small body into memory.
    pub(super) async fn body(&self, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| status::no_answer(self.request.uri, &error))?;
            let Some(chunk) = chunk else { return Ok(body) };
            if body.len() + chunk.len() > bytes_max {
                let uri = self.request.uri.to_owned();
                let message = format!("the registry's answer has more than {bytes_max} bytes");
                return Err(FetchError::Refused { uri, message }.into());
            }
            body.extend_from_slice(&chunk);
        }
    }
}

/// A blob as an origin of a download.
pub(super) struct Blob<'a> {
    registry: &'a Registry<'a>,
    path: String,
}

impl Blob<'_> {
    pub(super) fn url(&self) -> String {
        self.registry.url(&self.path)
    }
}

impl Origin for Blob<'_> {
    async fn get(&self, headers: HeaderMap) -> Result<Response, Fault> {
        self.registry.get(&self.path, headers).await
    }
}

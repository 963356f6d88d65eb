//! The Hub's HTTP API: the commit of a revision, the files of a commit, and their bytes.
//!
//! Facts: <https://huggingface.co/docs/hub/api>, and the headers `X-Error-Code` and `X-Error-Message` that its own client reads.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::{
    Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, LINK},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    FetchError,
    authorization::authorization,
    files::{Check, RemoteFile, is_path},
    http::{
        client::authority,
        retry::{Fault, Retries, RetryPolicy},
        status,
    },
    hub_reference::HubReference,
    request::Request,
};

/// Size limit of one answer of the API.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Pages of a listing, of a thousand files each.
const PAGES_MAX: usize = 100;
/// What is written with % in a part of a path.
const PART: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Client of one repository.
pub(super) struct Hub<'a> {
    request: &'a Request<'a>,
    /// The server, with a slash at its end.
    base: Url,
    repository: &'a str,
    authorization: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    oid: String,
    size: u64,
}

impl<'a> Hub<'a> {
    pub(super) fn new(request: &'a Request<'a>, reference: &'a HubReference) -> Result<Self, FetchError> {
        let endpoint = &request.tools.hub.endpoint;
        let base = Url::parse(&format!("{}/", endpoint.trim_end_matches('/')))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none());
        let base = base.ok_or_else(|| {
            FetchError::bad(request.uri, format!("the Hub `{endpoint}` is no http or https URL; correct HF_ENDPOINT"))
        })?;
        request.tools.plain.check(request.uri, &base)?;
        let secret = request.source.credentials.as_ref().or(request.tools.hub.credentials.as_ref());
        let secret = secret.and_then(|all| all.of(&authority(&base), &reference.repository));
        let authorization = secret.map(|secret| authorization(request.uri, &secret)).transpose()?;
        Ok(Self { request, base, repository: &reference.repository, authorization })
    }

    /// The server, for the names of what was fetched.
    pub(super) fn server(&self) -> &str {
        self.base.as_str()
    }

    /// The commit of a revision.
    pub(super) async fn commit(&self, revision: &str, retry: RetryPolicy) -> Result<String, FetchError> {
        let revision_part = part(revision);
        let url = self.url(&format!("api/models/{}/revision/{revision_part}", self.repository))?;
        let (found, _) = self.json::<Revision>(&url, &format!("revision {revision}"), retry).await?;
        let is_commit = found.sha.len() == 40 && found.sha.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_commit { Ok(found.sha) } else { Err(self.refused(format!("revision {revision}: has no commit"))) }
    }

    /// All files of a commit, in order of their paths.
    pub(super) async fn tree(&self, commit: &str) -> Result<Vec<RemoteFile>, FetchError> {
        let mut url = self.url(&format!("api/models/{}/tree/{commit}?recursive=true", self.repository))?;
        let mut files = Vec::new();
        for _ in 0..PAGES_MAX {
            let (items, next) = self.json::<Vec<Item>>(&url, "the list of files", self.request.tools.retry).await?;
            for item in items {
                if item.kind == "file" {
                    files.push(self.file(item)?);
                }
            }
            match next {
                Some(next) => url = next,
                None => {
                    files.sort_by(|a, b| a.path.cmp(&b.path));
                    return Ok(files);
                }
            }
        }
        Err(self.refused(format!("the list of files has more than {PAGES_MAX} pages; name a file of the repository")))
    }

    /// Where a file of a commit is.
    pub(super) fn file_url(&self, commit: &str, path: &str) -> Result<Url, FetchError> {
        let path: Vec<String> = path.split('/').map(part).collect();
        self.url(&format!("{}/resolve/{commit}/{}", self.repository, path.join("/")))
    }

    /// Asks for a file. The Hub redirects to its storage; the client drops the token when the host changes.
    pub(super) async fn get_file(&self, commit: &str, path: &str, headers: HeaderMap) -> Result<Response, Fault> {
        let response = self.get(&self.file_url(commit, path)?, headers).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                Err(self.fault("such file", &response))
            }
            _ => Ok(response),
        }
    }

    fn file(&self, item: Item) -> Result<RemoteFile, FetchError> {
        if !is_path(&item.path) {
            return Err(
                self.refused(format!("the list of files has `{}`, which is no path within a folder", item.path))
            );
        }
        let hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (check, bytes, is_right) = match item.lfs {
            Some(Large { oid, size }) => (Check::Sha256(oid.to_ascii_lowercase()), size, hex(&oid, 64)),
            None => (Check::Git(item.oid.to_ascii_lowercase()), item.size, hex(&item.oid, 40)),
        };
        if !is_right {
            return Err(self.refused(format!("the list of files has no digest of `{}`", item.path)));
        }
        Ok(RemoteFile { path: item.path, bytes, check, version: None })
    }

    fn url(&self, path: &str) -> Result<Url, FetchError> {
        self.base.join(path).map_err(|error| FetchError::bad(self.request.uri, error.to_string()))
    }

    /// An answer, and the address of the next page if there is one.
    async fn json<T: DeserializeOwned>(
        &self,
        url: &Url,
        what: &str,
        retry: RetryPolicy,
    ) -> Result<(T, Option<Url>), FetchError> {
        let mut retries = Retries::new(retry);
        let limit = self.request.tools.answer_max;
        loop {
            let answer = tokio::time::timeout(limit, self.try_json(url, what)).await;
            match answer.unwrap_or_else(|_| Err(status::late(self.request.uri, limit))) {
                Ok(found) => return Ok(found),
                Err(fault) => retries.pause(fault).await?,
            }
        }
    }

    async fn try_json<T: DeserializeOwned>(&self, url: &Url, what: &str) -> Result<(T, Option<Url>), Fault> {
        let mut response = self.get(url, HeaderMap::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(self.fault(what, &response));
        }
        // Never a page of another server: the token goes along.
        let next = response.headers().get(LINK).and_then(|value| value.to_str().ok()).and_then(next_page);
        let next = next.and_then(|next| url.join(next).ok()).filter(|next| next.origin() == self.base.origin());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| status::no_answer(self.request.uri, &error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.refused(format!("{what}: the answer has more than {ANSWER_BYTES_MAX} bytes")).into());
            }
            body.extend_from_slice(&chunk);
        }
        let read = serde_json::from_slice(&body);
        read.map(|found| (found, next))
            .map_err(|error| self.refused(format!("{what}: the answer is not that of a Hub: {error}")).into())
    }

    async fn get(&self, url: &Url, headers: HeaderMap) -> Result<Response, Fault> {
        let mut request = self.request.tools.client.get(url.clone()).headers(headers);
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(|error| status::no_answer(self.request.uri, &error))
    }

    /// The fault of an answer: the Hub says more than its status does.
    fn fault(&self, what: &str, response: &Response) -> Fault {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let uri = self.request.uri.to_owned();
        let repository = self.repository;
        match (header("x-error-code"), response.status()) {
            ("GatedRepo", _) => {
                let message =
                    format!("{repository} is gated: accept its terms on its page, with the account of the token");
                FetchError::Unauthorized { uri, message }.into()
            }
            ("RepoNotFound", StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let message =
                    format!("there is no repository {repository}, or it is private and needs a token that may read it");
                FetchError::Unauthorized { uri, message }.into()
            }
            ("RepoNotFound", _) => {
                FetchError::NotFound { uri, message: format!("there is no repository {repository}") }.into()
            }
            ("RevisionNotFound" | "EntryNotFound", _) => {
                FetchError::NotFound { uri, message: format!("{repository} has no {what}") }.into()
            }
            _ => status::fault(self.request.uri, what, response),
        }
    }

    fn refused(&self, message: String) -> FetchError {
        FetchError::Refused { uri: self.request.uri.to_owned(), message }
    }
}

/// A part of a path; a slash within it, too, is written with %.
fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// The address of `rel="next"` of a `Link` header (RFC 8288).
fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|one| {
        let (address, parameters) = one.trim().strip_prefix('<')?.split_once('>')?;
        let mut parameters = parameters.split(';').map(str::trim);
        parameters.any(|parameter| matches!(parameter, "rel=\"next\"" | "rel=next")).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        for (link, expected) in [
            ("<https://hub/x?cursor=a>; rel=\"next\"", Some("https://hub/x?cursor=a")),
            ("<https://hub/1>; rel=\"prev\", </2>; rel=next", Some("/2")),
            ("<https://hub/1>; rel=\"prev\"", None),
            ("rubbish", None),
        ] {
            assert_eq!(next_page(link), expected, "{link}");
        }
    }

    #[test]
    fn parts_of_a_path() {
        assert_eq!(part("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(part("a b#c.gguf"), "a%20b%23c.gguf");
    }
}

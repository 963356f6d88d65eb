//! `https://`: a file or an archive on a web server.

use reqwest::{
    Client, RequestBuilder, Response, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};

use crate::{
    Artifact, FetchError,
    authorization::authorization,
    cache::{blocking, entry::Entry, entry_key, job::Job, refs::Ref},
    http::{
        client::authority,
        download::{Download, DownloadRequest, Origin, Outcome},
        retry::Fault,
        status::no_answer,
    },
    part::{Becomes, Part},
    progress::{Phase, Progress, Watcher},
    request::Request,
    source::file_name,
    stage::concluded,
    unpack::Packing,
    validators::Validators,
};

/// Fetches a file or archive from a web server.
pub(crate) async fn fetch(request: Request<'_>, url: &Url, watch: Watcher<'_>) -> Result<Artifact, FetchError> {
    request.tools.plain.check(request.uri, url)?;
    let name = file_name(url).unwrap_or_default();
    let web = Web { packing: Packing::of_name(&name), name, url, request };
    match web.request.digest.clone() {
        Some(digest) => web.pinned(digest, watch).await,
        None => web.latest(watch).await,
    }
}

struct Web<'a> {
    request: Request<'a>,
    url: &'a Url,
    /// Name of the file.
    name: String,
    /// Archive format; `None` if it is not an archive.
    packing: Option<Packing>,
}

impl Web<'_> {
    /// The artifact with that digest, from the cache or the server.
    async fn pinned(&self, digest: String, watch: Watcher<'_>) -> Result<Artifact, FetchError> {
        let key = entry_key(&digest, self.packing.is_some());
        if let Some(entry) = self.cached(&key).await? {
            return Ok(Artifact::cached(entry, false));
        }
        let (cache, uri) = (&self.request.tools.cache, self.request.uri);
        let job = Job::begin(cache, &key, uri, watch).await?;
        // The previous holder of the job may have created it.
        let result = match self.cached(&key).await? {
            Some(entry) => Ok(entry),
            None => self
                .download(&job, &key, Some(digest), None, watch)
                .await
                .and_then(|made| made.ok_or_else(|| not_asked(uri))),
        };
        concluded(job, cache, uri, result).await.map(|entry| Artifact::cached(entry, false))
    }

    /// The server's current version, or the last known one if the server is unreachable.
    async fn latest(&self, watch: Watcher<'_>) -> Result<Artifact, FetchError> {
        let (cache, uri) = (&self.request.tools.cache, self.request.uri);
        let url = self.url.to_string();
        // The file name decides about unpacking, and a URL always has the same one.
        let key = format!("url-{}", crate::cache::refs::hashed(&url));
        let job = Job::begin(cache, &key, uri, watch).await?;
        let result = self.latest_alone(&job, &key, &url, watch).await;
        concluded(job, cache, uri, result).await
    }

    async fn latest_alone(&self, job: &Job, key: &str, url: &str, watch: Watcher<'_>) -> Result<Artifact, FetchError> {
        watch(Progress::of(Phase::Resolving, 0, None));
        let name = url.to_owned();
        let known = blocking(&self.request.tools.cache, self.request.uri, move |cache| {
            let Some(known) = cache.read_ref(&name) else { return Ok(None) };
            Ok(cache.lookup(&known.key)?.map(|entry| (entry, known.validators)))
        });
        let (entry, validators) = known.await?.unzip();
        match (self.download(job, key, None, validators, watch).await, entry) {
            (Ok(made), known) => {
                let entry = made.or(known).ok_or_else(|| not_asked(self.request.uri))?;
                Ok(Artifact::cached(entry, false))
            }
            (Err(error @ FetchError::Unreachable { .. }), Some(known)) => {
                tracing::info!(%error, "using what was fetched before");
                Ok(Artifact::cached(known, true))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// `None` if the server's version still matches `unless`.
    async fn download(
        &self,
        job: &Job,
        key: &str,
        digest: Option<String>,
        unless: Option<Validators>,
        watch: Watcher<'_>,
    ) -> Result<Option<Entry>, FetchError> {
        let store = self.request.tools;
        let path = job.dir().join("file");
        let retry = if unless.is_some() { store.retry.hurried() } else { store.retry };
        let request = DownloadRequest {
            uri: self.request.uri.to_owned(),
            name: self.name.clone(),
            url: self.url.to_string(),
            path: path.clone(),
            digest,
            size: None,
            unless,
        };
        let origin = WebOrigin::new(&store.client, &self.request, self.url)?;
        let (rate, answer_max) = (store.rate, store.answer_max);
        let cache = &store.cache;
        let download = Download { origin: &origin, request: &request, cache, job, key, retry, rate, answer_max };
        match download.run(watch).await? {
            Outcome::NotModified => Ok(None),
            Outcome::Arrived { digest, validators } => {
                let becomes = match self.packing {
                    Some(packing) => Becomes::Files(packing),
                    None => Becomes::File(self.name.clone().into()),
                };
                let part = Part { from: path, name: self.name.clone(), becomes };
                self.enter(job, &digest, part, validators, watch).await.map(Some)
            }
        }
    }

    /// Creates an entry unless it exists, and records the URL's version.
    async fn enter(
        &self,
        job: &Job,
        digest: &str,
        part: Part,
        validators: Validators,
        watch: Watcher<'_>,
    ) -> Result<Entry, FetchError> {
        let key = entry_key(digest, self.packing.is_some());
        let entry = match self.cached(&key).await? {
            Some(entry) => entry,
            None => self.request.stage(job, &key, digest, vec![part], watch).await?,
        };
        let to = Ref { source: self.request.uri.to_owned(), key, validators };
        self.request.remember(self.url.to_string(), to).await;
        Ok(entry)
    }

    async fn cached(&self, key: &str) -> Result<Option<Entry>, FetchError> {
        self.request.cached(key).await
    }
}

/// A server may answer "not modified" only to a conditional request.
fn not_asked(uri: &str) -> FetchError {
    let message = "the server answers 304 (not modified) to an unconditional request".to_owned();
    FetchError::Refused { uri: uri.to_owned(), message }
}

impl Request<'_> {
    pub(crate) async fn cached(&self, key: &str) -> Result<Option<Entry>, FetchError> {
        let key = key.to_owned();
        blocking(&self.tools.cache, self.uri, move |cache| cache.lookup(&key)).await
    }

    /// Failure costs only the fallback for an unreachable server.
    pub(crate) async fn remember(&self, name: String, to: Ref) {
        if let Err(error) = blocking(&self.tools.cache, self.uri, move |cache| cache.write_ref(&name, &to)).await {
            tracing::warn!(%error, "cannot record the version of a source");
        }
    }
}

struct WebOrigin<'a> {
    client: &'a Client,
    uri: &'a str,
    url: &'a Url,
    authorization: Option<HeaderValue>,
}

impl<'a> WebOrigin<'a> {
    fn new(client: &'a Client, request: &Request<'a>, url: &'a Url) -> Result<Self, FetchError> {
        let secret = request.source.credentials.as_ref().and_then(|all| all.of(&authority(url), url.path()));
        let authorization = secret.map(|secret| authorization(request.uri, &secret)).transpose()?;
        Ok(Self { client, uri: request.uri, url, authorization })
    }
}

impl Origin for WebOrigin<'_> {
    async fn get(&self, headers: HeaderMap) -> Result<Response, Fault> {
        let request: RequestBuilder = self.client.get(self.url.clone()).headers(headers);
        let request = match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        request.send().await.map_err(|error| no_answer(self.uri, &error))
    }
}

//! `oci://`: artifacts in an OCI registry.

mod manifest;
mod media;
mod registry;
mod token;

use crate::oci_reference::OciReference;
use crate::{
    Artifact, FetchError, Progress,
    cache::{blocking, entry::Entry, entry_key, job::Job, refs::Ref},
    http::{
        download::{Download, DownloadRequest},
        retry::RetryPolicy,
    },
    part::Part,
    progress::{Phase, Watcher},
    request::Request,
    stage::concluded,
    validators::Validators,
};
use manifest::{Layer, Manifest, ManifestContent};
use registry::Registry;

/// Fetches an artifact from a registry.
pub(crate) async fn fetch(
    request: Request<'_>,
    reference: &OciReference,
    watch: Watcher<'_>,
) -> Result<Artifact, FetchError> {
    if let (Some(asked), Some(written)) = (&request.digest, &reference.digest)
        && asked != written
    {
        let message = format!("the URI names digest sha256:{written} and the source sha256:{asked}; leave one out");
        return Err(FetchError::bad(request.uri, message));
    }
    let digest = request.digest.as_ref().or(reference.digest.as_ref()).cloned();
    let registry = Registry::new(&request, reference)?;
    let oci = Oci { request: &request, registry: &registry };
    match digest {
        Some(digest) => oci.pinned(&digest, None, watch).await.map(|entry| Artifact::cached(entry, false)),
        None => oci.tagged(reference, watch).await,
    }
}

struct Oci<'a> {
    request: &'a Request<'a>,
    registry: &'a Registry<'a>,
}

impl Oci<'_> {
    /// The tag's current version, or the last known one if the registry is unreachable.
    async fn tagged(&self, reference: &OciReference, watch: Watcher<'_>) -> Result<Artifact, FetchError> {
        watch(Progress::of(Phase::Resolving, 0, None));
        let name = reference.to_string();
        let known = self.known(name.clone()).await?;
        let retry = self.request.tools.retry;
        let retry = if known.is_some() { retry.hurried() } else { retry };
        let fetched = self.latest(reference, name, retry, watch).await;
        match (fetched, known) {
            (Ok(entry), _) => Ok(Artifact::cached(entry, false)),
            (Err(error @ FetchError::Unreachable { .. }), Some(entry)) => {
                tracing::info!(%error, "using what was fetched before");
                Ok(Artifact::cached(entry, true))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn latest(
        &self,
        reference: &OciReference,
        name: String,
        retry: RetryPolicy,
        watch: Watcher<'_>,
    ) -> Result<Entry, FetchError> {
        let manifest = self.registry.manifest(reference.tag(), retry).await?;
        let key = entry_key(&manifest.digest, false);
        let digest = manifest.digest.clone();
        let entry = self.pinned(&digest, Some(manifest), watch).await?;
        let to = Ref { source: self.request.uri.to_owned(), key, validators: Validators::default() };
        self.request.remember(name, to).await;
        Ok(entry)
    }

    async fn known(&self, name: String) -> Result<Option<Entry>, FetchError> {
        blocking(&self.request.tools.cache, self.request.uri, move |cache| match cache.read_ref(&name) {
            Some(known) => cache.lookup(&known.key),
            None => Ok(None),
        })
        .await
    }

    /// The artifact with that manifest digest.
    async fn pinned(&self, digest: &str, manifest: Option<Manifest>, watch: Watcher<'_>) -> Result<Entry, FetchError> {
        let key = entry_key(digest, false);
        if let Some(entry) = self.request.cached(&key).await? {
            return Ok(entry);
        }
        let (cache, uri) = (&self.request.tools.cache, self.request.uri);
        let job = Job::begin(cache, &key, uri, watch).await?;
        // The previous holder of the job may have created it.
        let result = match self.request.cached(&key).await {
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => self.make(&job, &key, digest, manifest, watch).await,
            Err(error) => Err(error),
        };
        concluded(job, cache, uri, result).await
    }

    async fn make(
        &self,
        job: &Job,
        key: &str,
        digest: &str,
        manifest: Option<Manifest>,
        watch: Watcher<'_>,
    ) -> Result<Entry, FetchError> {
        let layers = self.layers(digest, manifest, watch).await?;
        let total = layers.iter().map(|layer| layer.bytes).sum();
        self.request.reserve(job, key, total).await?;
        let (mut parts, mut before) = (Vec::new(), 0);
        for layer in layers {
            let mut whole = |progress: Progress| match progress.phase {
                Phase::Downloading | Phase::Verifying => {
                    watch(Progress::of(progress.phase, before + progress.done, total));
                }
                _ => watch(progress),
            };
            parts.push(self.download(job, key, &layer, &mut whole).await?);
            before += layer.bytes;
        }
        self.request.stage(job, key, digest, parts, watch).await
    }

    /// The layers of a manifest, directly or through an index.
    async fn layers(
        &self,
        digest: &str,
        manifest: Option<Manifest>,
        watch: Watcher<'_>,
    ) -> Result<Vec<Layer>, FetchError> {
        watch(Progress::of(Phase::Resolving, 0, None));
        let (uri, retry) = (self.request.uri, self.request.tools.retry);
        let manifest = match manifest {
            Some(manifest) => manifest,
            None => self.registry.manifest(&format!("sha256:{digest}"), retry).await?,
        };
        let next = match manifest.read(uri)? {
            ManifestContent::Layers(layers) => return Ok(layers),
            ManifestContent::Redirect(next) => next,
        };
        match self.registry.manifest(&format!("sha256:{next}"), retry).await?.read(uri)? {
            ManifestContent::Layers(layers) => Ok(layers),
            ManifestContent::Redirect(_) => Err(FetchError::UnsupportedMediaType {
                uri: uri.to_owned(),
                file: format!("manifest sha256:{next}"),
                media_type: "of an index".to_owned(),
                message: "within an index; push the artifact itself".to_owned(),
            }),
        }
    }

    async fn download(
        &self,
        job: &Job,
        key: &str,
        layer: &Layer,
        watch: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Part, FetchError> {
        let store = self.request.tools;
        let origin = self.registry.blob(&layer.digest);
        let path = job.dir().join(format!("blob-{}", layer.digest));
        let name = format!("layer sha256:{}", layer.digest);
        let request = DownloadRequest {
            uri: self.request.uri.to_owned(),
            name: name.clone(),
            url: origin.url(),
            path: path.clone(),
            digest: Some(layer.digest.clone()),
            size: Some(layer.bytes),
            unless: None,
        };
        let (cache, retry, rate, answer_max) = (&store.cache, store.retry, store.rate, store.answer_max);
        let download = Download { origin: &origin, request: &request, cache, job, key, retry, rate, answer_max };
        // The request was not conditional, so "not modified" cannot occur.
        download.run(watch).await?;
        Ok(Part { from: path, name, becomes: layer.becomes.clone() })
    }
}

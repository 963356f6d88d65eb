//! Comparison of requests with the examples of their routes: vectors are asked for, kept and compared.
//!
//! The vectors of a route's examples are made once for each version of the route and of its encoder, in the background: a request
//! waits for them for as long as it would wait for its own vector. Vectors of requests are kept by their text, each tenant's for
//! itself, so that nobody can find out by the time of an answer what others have asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use sha2::{Digest as _, Sha256};
use slm_crds::{route::Target, selection::EXAMPLES_MAX};
use thiserror::Error;
use tokio::{
    sync::{SetOnce, watch},
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    encoders::{EncodeError, Encoders},
    metrics::Metrics,
    route::{Comparison, Route},
    similarity::{Examples, Scope, Similar},
    view::{Entry, View},
};

/// Longest time that a request waits for its vector and those of the examples.
const LIMIT: Duration = Duration::from_secs(2);
/// Pause before vectors of examples that could not be made are asked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// Examples of one request to an encoder.
const BATCH: usize = 64;
/// Bytes of a text that are compared: encoders read less.
const TEXT_BYTES_MAX: usize = 4096;
/// Bytes of the vectors that are kept.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// Multiplications from which a comparison is no affair of a network thread.
const QUICK: usize = 1 << 20;
/// Name under which a worker counts the router's own texts.
const TENANT: &str = "(router)";

/// The comparisons of one router.
#[derive(Clone)]
pub(crate) struct Comparer(Arc<Shares>);

struct Shares {
    encoders: Encoders,
    metrics: Arc<Metrics>,
    /// Of each route, what was prepared last.
    prepared: Mutex<HashMap<String, Prepared>>,
    kept: Mutex<Kept>,
}

struct Prepared {
    route: Arc<Route>,
    /// Version of the encoder.
    digest: String,
    begun: Instant,
    preparing: Arc<Preparing>,
}

/// Vectors of examples that are there, or are being made for as long as somebody wants them.
struct Preparing {
    made: Arc<SetOnce<Result<Arc<Examples>, CompareError>>>,
    _task: AbortOnDropHandle<()>,
}

/// Vectors by the hash of tenant, encoder and text.
struct Kept {
    vectors: LruCache<[u8; 32], Arc<[f32]>>,
    bytes: usize,
}

/// The reason why a request was not compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CompareError {
    /// There is nothing to compare.
    #[error("the request has no text of a user")]
    NoText,
    /// No vectors.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// No vectors in time.
    #[error("it was not compared with the examples within {} s", LIMIT.as_secs())]
    Slow,
    /// No target has an example, or they have too many.
    #[error("the targets of the route have {0} examples; 1 to {EXAMPLES_MAX} can be compared with")]
    NoExamples(usize),
    /// A task has failed.
    #[error("internal error of the router; its log says more")]
    Internal,
}

impl CompareError {
    /// Whether the same request may be compared a little later.
    pub(crate) fn passes(&self) -> bool {
        !matches!(self, Self::NoText | Self::NoExamples(_))
    }
}

impl Comparer {
    pub(crate) fn new(encoders: Encoders, metrics: Arc<Metrics>) -> Self {
        let kept = Mutex::new(Kept { vectors: LruCache::unbounded(), bytes: 0 });
        Self(Arc::new(Shares { encoders, metrics, prepared: Mutex::default(), kept }))
    }

    /// Compares `text` with the examples of `route`, by `comparison`, which is the route's.
    pub(crate) async fn compare(
        &self,
        route: &Arc<Route>,
        comparison: &Comparison,
        text: &str,
        tenant: &str,
    ) -> Result<Similar, CompareError> {
        let begun = std::time::Instant::now();
        let compared = async {
            if text.trim().is_empty() {
                return Err(CompareError::NoText);
            }
            timeout(LIMIT, self.compared(route, comparison, text, tenant)).await.unwrap_or(Err(CompareError::Slow))
        };
        let outcome = compared.await;
        let scope = match outcome.as_ref().map(|similar| similar.scope) {
            Ok(Scope::In) => "in",
            Ok(Scope::Unsure) => "unsure",
            Ok(Scope::Out) => "out",
            Err(_) => "error",
        };
        self.0.metrics.compared(&route.name, scope, begun);
        outcome
    }

    async fn compared(
        &self,
        route: &Arc<Route>,
        comparison: &Comparison,
        text: &str,
        tenant: &str,
    ) -> Result<Similar, CompareError> {
        let encoder = &comparison.similarity.encoder;
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        let digest = self.0.encoders.digest(encoder)?;
        match self.compared_by(&digest, (route, encoder), text, tenant).await {
            // The encoder was replaced meanwhile: once more, by the new version.
            Err(CompareError::Encode(EncodeError::Replaced(_) | EncodeError::NotLoaded { .. }))
                if self.0.encoders.digest(encoder)? != digest =>
            {
                let digest = self.0.encoders.digest(encoder)?;
                self.compared_by(&digest, (route, encoder), text, tenant).await
            }
            outcome => outcome,
        }
    }

    async fn compared_by(
        &self,
        digest: &str,
        (route, encoder): (&Arc<Route>, &Target),
        text: &str,
        tenant: &str,
    ) -> Result<Similar, CompareError> {
        let vector = self.vector(encoder, digest, text, tenant).await?;
        let preparing = self.preparing(route, digest);
        let examples = preparing.made.wait().await.clone()?;
        if examples.cost() <= QUICK {
            return Ok(examples.compare(&vector));
        }
        tokio::task::spawn_blocking(move || examples.compare(&vector)).await.map_err(|_| CompareError::Internal)
    }

    /// The vector of a text by this version of the encoder.
    async fn vector(
        &self,
        encoder: &Target,
        digest: &str,
        text: &str,
        tenant: &str,
    ) -> Result<Arc<[f32]>, EncodeError> {
        let kept = || self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(tenant, encoder, digest, text);
        if let Some(vector) = kept().get(&key) {
            return Ok(vector);
        }
        let vectors = self.0.encoders.encode((encoder, digest), &[text.to_owned()], tenant).await?;
        let vector: Arc<[f32]> = vectors.into_iter().next().unwrap_or_default().into();
        kept().put(key, Arc::clone(&vector));
        Ok(vector)
    }

    /// The vectors of the route's examples by this version of its encoder.
    fn preparing(&self, route: &Arc<Route>, digest: &str) -> Arc<Preparing> {
        let mut prepared = self.0.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = prepared.get(&route.name)
            && Arc::ptr_eq(&known.route, route)
            && known.digest == digest
            && !known.is_over()
        {
            return Arc::clone(&known.preparing);
        }
        let preparing = Arc::new(Preparing::begin(self.0.encoders.clone(), Arc::clone(route), digest.to_owned()));
        let entry = Prepared {
            route: Arc::clone(route),
            digest: digest.to_owned(),
            begun: Instant::now(),
            preparing: Arc::clone(&preparing),
        };
        prepared.insert(route.name.clone(), entry);
        preparing
    }

    /// Prepares every route of every view, before a request needs it. Ends with the sender of `view`.
    pub(crate) async fn prepare_all(self, mut view: watch::Receiver<Arc<View>>) {
        loop {
            let now = Arc::clone(&view.borrow_and_update());
            self.prepare_routes(&now);
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    fn prepare_routes(&self, view: &View) {
        let is_route = |name: &String| matches!(view.index.names.get(name), Some(Entry::Route(_)));
        self.0.prepared.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| is_route(name));
        for route in &view.index.swarm.routes {
            let Some(Entry::Route(route)) = view.index.names.get(&route.name) else { continue };
            let Some(comparison) = &route.comparison else { continue };
            if let Ok(digest) = self.0.encoders.digest(&comparison.similarity.encoder) {
                self.preparing(route, &digest);
            }
        }
    }
}

impl Prepared {
    /// It has failed, some time ago.
    fn is_over(&self) -> bool {
        matches!(self.preparing.made.get(), Some(Err(_))) && self.begun.elapsed() >= PAUSE
    }
}

impl Preparing {
    fn begin(encoders: Encoders, route: Arc<Route>, digest: String) -> Self {
        let made = Arc::new(SetOnce::new());
        let told = Arc::clone(&made);
        // In a task of its own, so that one that panics is heard of.
        let task = AbortOnDropHandle::new(tokio::spawn(prepare(encoders, route, digest)));
        let task = async move {
            // Set here only.
            let _ = told.set(task.await.unwrap_or(Err(CompareError::Internal)));
        };
        Self { made, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }
}

impl Kept {
    fn get(&mut self, key: &[u8; 32]) -> Option<Arc<[f32]>> {
        self.vectors.get(key).map(Arc::clone)
    }

    fn put(&mut self, key: [u8; 32], vector: Arc<[f32]>) {
        self.bytes += bytes(&vector);
        if let Some(former) = self.vectors.put(key, vector) {
            self.bytes -= bytes(&former);
        }
        while self.bytes > KEPT_BYTES_MAX {
            let Some((_, oldest)) = self.vectors.pop_lru() else { return };
            self.bytes -= bytes(&oldest);
        }
    }
}

/// With what an entry of the map has beside its numbers.
fn bytes(vector: &[f32]) -> usize {
    size_of_val(vector) + 128
}

fn key(tenant: &str, encoder: &Target, digest: &str, text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [tenant, &encoder.name, digest] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.update(text);
    hash.finalize().into()
}

/// Makes the vectors of a route's examples.
async fn prepare(encoders: Encoders, route: Arc<Route>, digest: String) -> Result<Arc<Examples>, CompareError> {
    let Some(Comparison { similarity, examples }) = &route.comparison else { return Err(CompareError::Internal) };
    let encoder = &similarity.encoder;
    let texts: Vec<String> = examples.iter().flatten().cloned().collect();
    if texts.is_empty() || texts.len() > EXAMPLES_MAX {
        return Err(CompareError::NoExamples(texts.len()));
    }
    let mut vectors = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        vectors.extend(encoders.encode((encoder, &digest), batch, TENANT).await?);
    }
    let mut vectors = vectors.into_iter();
    let of_targets = examples.iter().map(|texts| vectors.by_ref().take(texts.len()).collect()).collect();
    let (count, similarity) = (texts.len(), similarity.clone());
    let made = tokio::task::spawn_blocking(move || Arc::new(Examples::new(of_targets, &similarity)));
    let made = made.await.map_err(|_| CompareError::Internal)?;
    tracing::info!(
        route = route.name,
        encoder = encoder.name,
        examples = count,
        ?made,
        "the examples of a route are ready"
    );
    Ok(made)
}

#[cfg(test)]
mod tests {
    use slm_crds::route::TargetKind;

    use super::*;

    #[test]
    fn what_is_kept_has_a_bound_and_an_owner() {
        let mut kept = Kept { vectors: LruCache::unbounded(), bytes: 0 };
        let encoder = Target { kind: TargetKind::SlmModel, name: "e".to_owned() };
        let key = |tenant: &str, text: &str| key(tenant, &encoder, "sha256:1", text);
        assert_ne!(key("a", "text"), key("b", "text"));
        assert_ne!(key("a", "btext"), key("ab", "text"));
        let vector: Arc<[f32]> = vec![0.0; 1 << 20].into();
        for text in 0..20 {
            kept.put(key("a", &text.to_string()), Arc::clone(&vector));
            kept.put(key("a", &text.to_string()), Arc::clone(&vector));
        }
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.bytes == kept.vectors.len() * bytes(&vector));
        assert_eq!(kept.vectors.len(), 7);
        assert!(kept.get(&key("a", "19")).is_some() && kept.get(&key("a", "12")).is_none());
    }
}

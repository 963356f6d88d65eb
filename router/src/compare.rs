//! Comparison of requests with the examples of their routes: vectors are asked for, kept and compared.
//!
//! The vectors of a route's examples are made once for each version of the route and of its encoder, in the background: a request
//! waits for them for as long as it would wait for its own vector. Vectors of requests are kept (`kept`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use slm_crds::{route::Target, selection::EXAMPLES_MAX};
use thiserror::Error;
use tokio::{
    sync::{SetOnce, watch},
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    encoders::{EncodeError, Encoders},
    kept::{Kept, key},
    metrics::Metrics,
    route::Route,
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

/// The reason why a request was not compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CompareError {
    /// There is nothing to compare.
    #[error("the request has no text of a user; send one, or name an expert")]
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
        Self(Arc::new(Shares { encoders, metrics, prepared: Mutex::default(), kept: Mutex::default() }))
    }

    /// Compares `text` with the examples of `route` by the vectors of `encoder`, which is the route's.
    pub(crate) async fn compare(
        &self,
        route: &Arc<Route>,
        encoder: &Target,
        text: &str,
        tenant: &str,
    ) -> Result<Similar, CompareError> {
        let begun = std::time::Instant::now();
        let outcome = match text.trim().is_empty() {
            true => Err(CompareError::NoText),
            false => {
                let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
                let compared = self.compared((route, encoder), text, tenant);
                timeout(LIMIT, compared).await.unwrap_or(Err(CompareError::Slow))
            }
        };
        let scope = match outcome.as_ref().map(|similar| similar.scope) {
            Ok(Scope::In) => "in",
            Ok(Scope::Unsure) => "unsure",
            Ok(Scope::Out) => "out",
            Err(_) => "error",
        };
        self.0.metrics.compared(&route.name, scope, begun);
        outcome
    }

    async fn compared(&self, by: (&Arc<Route>, &Target), text: &str, tenant: &str) -> Result<Similar, CompareError> {
        let encoder = by.1;
        let digest = self.0.encoders.digest(encoder)?;
        match self.compared_by(&digest, by, text, tenant).await {
            // The encoder was replaced meanwhile: once more, by the new version.
            Err(CompareError::Encode(EncodeError::Replaced(_) | EncodeError::NotLoaded { .. }))
                if self.0.encoders.digest(encoder)? != digest =>
            {
                let digest = self.0.encoders.digest(encoder)?;
                self.compared_by(&digest, by, text, tenant).await
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
            let Some(similarity) = route.similarity() else { continue };
            if let Ok(digest) = self.0.encoders.digest(&similarity.encoder) {
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

/// Makes the vectors of a route's examples.
async fn prepare(encoders: Encoders, route: Arc<Route>, digest: String) -> Result<Arc<Examples>, CompareError> {
    let Some(similarity) = route.similarity() else { return Err(CompareError::Internal) };
    let (encoder, examples) = (&similarity.encoder, &route.examples);
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

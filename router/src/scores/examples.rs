//! Comparison of requests with the examples of their routes.
//!
//! The vectors of a route's examples are made once for each version of the route and of its encoder, in the background: a request
//! waits for them for as long as it would wait for its own vector. Vectors of requests are kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use slm_crds::{route::Target, selection::EXAMPLES_MAX};
use tokio::{
    sync::{SetOnce, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Kept, ReadError, Readers, Scope, ScoreError, Similar, in_time, kept::key, readable, readers::Reader,
    similarity::Examples,
};
use crate::{
    metrics::Metrics,
    route::Route,
    view::{Entry, View},
};

/// Pause before vectors of examples that could not be made are asked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// Examples of one request to an encoder.
const BATCH: usize = 64;
/// Multiplications from which a comparison is no affair of a network thread.
const QUICK: usize = 1 << 20;
/// Name under which a worker counts the router's own texts.
const TENANT: &str = "(router)";
const ROLE: &str = "encoder";

/// The comparisons of one router.
#[derive(Clone)]
pub(crate) struct Comparer(Arc<Shares>);

struct Shares {
    readers: Readers,
    kept: Kept,
    metrics: Arc<Metrics>,
    /// Of each route, what was prepared last.
    prepared: Mutex<HashMap<String, Prepared>>,
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
    made: Arc<SetOnce<Result<Arc<Examples>, ScoreError>>>,
    _task: AbortOnDropHandle<()>,
}

impl Comparer {
    pub(crate) fn new(readers: Readers, kept: Kept, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shares { readers, kept, metrics, prepared: Mutex::default() }))
    }

    /// Compares `text` with the examples of `route` by the vectors of `encoder`, which is the route's.
    pub(crate) async fn compare(
        &self,
        route: &Arc<Route>,
        encoder: &Target,
        text: &str,
        tenant: &str,
    ) -> Result<Similar, ScoreError> {
        let begun = std::time::Instant::now();
        let scored = async { self.compared((route, encoder), readable(text)?, tenant).await };
        let outcome = in_time((ROLE, &encoder.name), scored).await;
        let scope = Scope::of_outcome(outcome.as_ref().map(|similar| similar.scope));
        self.0.metrics.scored("similarity", &route.name, scope, begun);
        outcome
    }

    async fn compared(&self, by: (&Arc<Route>, &Target), text: &str, tenant: &str) -> Result<Similar, ScoreError> {
        let encoder = by.1;
        let digest = self.0.readers.digest(ROLE, encoder)?;
        match self.compared_by(&digest, by, text, tenant).await {
            // The encoder was replaced meanwhile: once more, by the new version.
            Err(ScoreError::Read(error))
                if error.is_of_version() && self.0.readers.digest(ROLE, encoder)? != digest =>
            {
                let digest = self.0.readers.digest(ROLE, encoder)?;
                self.compared_by(&digest, by, text, tenant).await
            }
            outcome => outcome,
        }
    }

    /// The vector of a text by the encoder's version of now, for whatever it is compared with.
    pub(crate) async fn vector_of(&self, encoder: &Target, text: &str, tenant: &str) -> Result<Arc<[f32]>, ScoreError> {
        let text = readable(text)?;
        let digest = self.0.readers.digest(ROLE, encoder)?;
        match self.vector(&Reader::encoder(encoder, &digest), text, tenant).await {
            // It was replaced meanwhile.
            Err(error) if error.is_of_version() => {
                let digest = self.0.readers.digest(ROLE, encoder)?;
                Ok(self.vector(&Reader::encoder(encoder, &digest), text, tenant).await?)
            }
            outcome => Ok(outcome?),
        }
    }

    async fn compared_by(
        &self,
        digest: &str,
        (route, encoder): (&Arc<Route>, &Target),
        text: &str,
        tenant: &str,
    ) -> Result<Similar, ScoreError> {
        let vector = self.vector(&Reader::encoder(encoder, digest), text, tenant).await?;
        let preparing = self.preparing(route, digest);
        let examples = preparing.made.wait().await.clone()?;
        if examples.cost() <= QUICK {
            return Ok(examples.compare(&vector));
        }
        tokio::task::spawn_blocking(move || examples.compare(&vector)).await.map_err(|_| ScoreError::Internal)
    }

    /// The vector of a text.
    async fn vector(&self, encoder: &Reader<'_>, text: &str, tenant: &str) -> Result<Arc<[f32]>, ReadError> {
        let key = key(tenant, encoder, text);
        if let Some(vector) = self.0.kept.get(&key) {
            return Ok(vector);
        }
        let vectors = self.0.readers.encode(encoder, &[text.to_owned()], tenant).await?;
        let vector: Arc<[f32]> = vectors.into_iter().next().unwrap_or_default().into();
        self.0.kept.put(key, Arc::clone(&vector));
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
        let preparing = Arc::new(Preparing::begin(self.0.readers.clone(), Arc::clone(route), digest.to_owned()));
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
            if let Ok(digest) = self.0.readers.digest(ROLE, &similarity.encoder) {
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
    fn begin(readers: Readers, route: Arc<Route>, digest: String) -> Self {
        let made = Arc::new(SetOnce::new());
        let told = Arc::clone(&made);
        // In a task of its own, so that one that panics is heard of.
        let task = AbortOnDropHandle::new(tokio::spawn(prepare(readers, route, digest)));
        let task = async move {
            // Set here only.
            let _ = told.set(task.await.unwrap_or(Err(ScoreError::Internal)));
        };
        Self { made, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }
}

/// Makes the vectors of a route's examples.
async fn prepare(readers: Readers, route: Arc<Route>, digest: String) -> Result<Arc<Examples>, ScoreError> {
    let Some(similarity) = route.similarity() else { return Err(ScoreError::Internal) };
    let (encoder, examples) = (&similarity.encoder, &route.examples);
    let texts: Vec<String> = examples.iter().flatten().cloned().collect();
    if texts.is_empty() || texts.len() > EXAMPLES_MAX {
        return Err(ScoreError::NoExamples(texts.len()));
    }
    let mut vectors = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        vectors.extend(readers.encode(&Reader::encoder(encoder, &digest), batch, TENANT).await?);
    }
    let mut vectors = vectors.into_iter();
    let of_targets = examples.iter().map(|texts| vectors.by_ref().take(texts.len()).collect()).collect();
    let (count, similarity) = (texts.len(), similarity.clone());
    let made = tokio::task::spawn_blocking(move || Arc::new(Examples::new(of_targets, &similarity)));
    let made = made.await.map_err(|_| ScoreError::Internal)?;
    tracing::info!(
        route = route.name,
        encoder = encoder.name,
        examples = count,
        ?made,
        "the examples of a route are ready"
    );
    Ok(made)
}

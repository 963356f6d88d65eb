//! The models outside that there are, those that may be asked now, and the state that routers follow.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use slm_proto::v1::{AdapterPhase, AdapterState, WorkerState};
use tokio::{
    sync::{Notify, watch},
    time::sleep_until,
};
use tonic::Status;

use crate::{
    credentials::{Secrets, Untold},
    metrics::Metrics,
    model::Model,
    snapshot::Externals,
};

/// Time after which Secrets are read again: they change without a word.
const SECRETS_AGAIN: Duration = Duration::from_secs(30);

/// All models. A model that cannot be asked has the reason in its place.
pub(crate) struct Registry {
    models: Mutex<HashMap<String, Result<Arc<Model>, String>>>,
    state: watch::Sender<WorkerState>,
    /// A reason to look before it is time.
    changed: Notify,
    /// Whether a token was refused: its Secret may have another one by now.
    token_refused: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Registry {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let state = watch::Sender::new(WorkerState { sequence: 1, ..WorkerState::default() });
        Self { models: Mutex::default(), state, changed: Notify::new(), token_refused: AtomicBool::new(false), metrics }
    }

    fn models(&self) -> MutexGuard<'_, HashMap<String, Result<Arc<Model>, String>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn states(&self) -> watch::Receiver<WorkerState> {
        self.state.subscribe()
    }

    /// The model of that name.
    ///
    /// # Errors
    /// NOT_FOUND: there is none; UNAVAILABLE: it cannot be asked, and why.
    pub(crate) fn model(&self, name: &str) -> Result<Arc<Model>, Status> {
        match self.models().get(name) {
            Some(Ok(model)) => Ok(Arc::clone(model)),
            Some(Err(why)) => Err(Status::unavailable(format!("the ExternalModel `{name}` cannot be asked: {why}"))),
            None => Err(Status::not_found(format!("no ExternalModel is named `{name}`"))),
        }
    }

    /// Something about a model may have changed: its circuit, its load.
    pub(crate) fn publish(&self) {
        let models = self.models();
        let mut asked: Vec<&Arc<Model>> = models.values().filter_map(|model| model.as_ref().ok()).collect();
        for model in &asked {
            self.metrics.circuit(&model.name, !model.asked());
        }
        asked.sort_by(|one, other| one.name.cmp(&other.name));
        let load = asked.iter().map(|model| model.load());
        let (running, waiting) = load.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        let adapter = |model: &&Arc<Model>| AdapterState {
            name: model.name.clone(),
            phase: AdapterPhase::Serving.into(),
            active_requests: model.load().0,
            ..AdapterState::default()
        };
        let next = WorkerState {
            adapters: asked.iter().filter(|model| model.asked()).map(adapter).collect(),
            sequences_max: asked.iter().map(|model| model.spec.concurrency).sum(),
            sequences_running: running,
            requests_waiting: waiting,
            ..WorkerState::default()
        };
        self.state.send_if_modified(|state| {
            let same = WorkerState { sequence: state.sequence, draining: state.draining, ..next.clone() } == *state;
            if !same {
                *state = WorkerState { sequence: state.sequence + 1, draining: state.draining, ..next };
            }
            !same
        });
    }

    /// No new requests are taken.
    pub(crate) fn drain(&self) {
        self.state.send_modify(|state| {
            state.sequence += 1;
            state.draining = true;
        });
    }

    /// A model did not answer: its circuit may be open now, or its token another one.
    pub(crate) fn failed(&self, token_refused: bool) {
        self.token_refused.fetch_or(token_refused, Ordering::Relaxed);
        self.publish();
        self.changed.notify_one();
    }

    /// Follows the snapshots and the Secrets, until the sender of snapshots is gone.
    pub(crate) async fn follow(&self, mut externals: watch::Receiver<Arc<Externals>>, secrets: Secrets) {
        loop {
            let now = Arc::clone(&externals.borrow_and_update());
            self.token_refused.store(false, Ordering::Relaxed);
            self.adopt(&now, &secrets).await;
            let again = Instant::now() + SECRETS_AGAIN;
            // A circuit that opens is no reason to read Secrets: each call that fails would be a call of the API server.
            while !self.token_refused.load(Ordering::Relaxed) && Instant::now() < again {
                self.publish();
                let now = Instant::now();
                let reopens =
                    self.models().values().filter_map(|model| model.as_ref().ok()?.circuit().reopens(now)).min();
                tokio::select! {
                    changed = externals.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = self.changed.notified() => {}
                    () = sleep_until(reopens.map_or(again, |at| at.min(again)).into()) => {}
                }
            }
        }
    }

    async fn adopt(&self, externals: &Externals, secrets: &Secrets) {
        let mut next = HashMap::new();
        for external in &externals.externals {
            let token = match &external.spec.secret_ref {
                None => Ok(None),
                Some(secret) => secrets.token(&secret.name, &external.spec).await.map(Some),
            };
            let former = self.models().get(&external.name).cloned();
            let model = match (token, former) {
                // The API server is away: what was right a moment ago serves on.
                (Err(Untold::Unread(why)), Some(Ok(former))) if former.spec == external.spec => {
                    tracing::warn!(model = external.name, why, "the token of an ExternalModel stays as it was");
                    Ok(former)
                }
                (Err(Untold::Unread(why) | Untold::Refused(why)), former) => {
                    if former.is_none_or(|former| former.as_ref().err() != Some(&why)) {
                        tracing::warn!(model = external.name, why, "an ExternalModel cannot be asked");
                    }
                    Err(why)
                }
                // Its places and its circuit are kept.
                (Ok(token), Some(Ok(former))) if former.is(&external.spec, token.as_ref()) => Ok(former),
                (Ok(token), _) => Model::new(&external.name, &external.spec, token).map(Arc::new).inspect_err(|why| {
                    tracing::warn!(model = external.name, why, "an ExternalModel cannot be asked");
                }),
            };
            next.insert(external.name.clone(), model);
        }
        *self.models() = next;
    }
}

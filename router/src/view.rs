//! Observed state: the swarm, with the last state of every worker. Plain data; every decision is a function of it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use slm_proto::v1::{AdapterLocation, AdapterPhase, AdapterState, ExpertKind, WorkerState};

use crate::{
    absence::{Absence, NotLoadable},
    route::Route,
    swarm::{Adapter, External, Model, Swarm},
};

/// Desired and observed state at one moment.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) index: Arc<Index>,
    pub(crate) workers: Vec<Arc<Worker>>,
    /// What asks models outside. Their states are as those of workers: the models are listed as adapters.
    pub(crate) egress: Vec<Arc<Worker>>,
}

/// The swarm by name, with its rules compiled. Made once a snapshot of the swarm.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) swarm: Arc<Swarm>,
    pub(crate) names: HashMap<String, Entry>,
    /// Rules that do not compile: route, rule counted from 1, why.
    pub(crate) broken_rules: Vec<(String, usize, String)>,
}

/// The object behind a name.
#[derive(Debug)]
pub(crate) enum Entry {
    Expert(Expert),
    Route(Arc<Route>),
}

/// A model or an adapter, as desired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expert {
    pub(crate) kind: ExpertKind,
    pub(crate) name: String,
    pub(crate) model: String,
    /// Empty when any will do.
    pub(crate) digest: String,
    pub(crate) description: String,
    /// Reason why no worker can load it until it changes; empty when there is none.
    pub(crate) refused: String,
}

/// One worker, as it reports itself.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) url: Arc<str>,
    /// Model that the swarm lists it under.
    pub(crate) model: String,
    /// Its latest state, or the reason why there is none.
    pub(crate) state: Result<Arc<WorkerState>, Arc<str>>,
    /// Messages and breaks of its stream that this router has seen; unlike the worker's own count it never goes back.
    pub(crate) seen: u64,
    /// Streams that this router has open to it: the state stream is always a little behind.
    pub(crate) open: Arc<AtomicU32>,
}

impl View {
    pub(crate) fn workers_of<'v>(&'v self, model: &'v str) -> impl Iterator<Item = &'v Arc<Worker>> {
        self.workers.iter().filter(move |worker| worker.model == model)
    }

    /// Who could have the expert: the workers of its model, or the egress for a model outside.
    pub(crate) fn holders<'v, 'e>(&'v self, expert: &'e Expert) -> impl Iterator<Item = &'v Arc<Worker>> + use<'v, 'e> {
        let all = if expert.is_external() { &self.egress } else { &self.workers };
        all.iter().filter(|worker| worker.model == expert.model)
    }
}

impl Worker {
    /// The state of a worker that takes requests for its model.
    ///
    /// # Errors
    /// The reason why it takes none.
    pub(crate) fn serving(&self) -> Result<&WorkerState, Absence> {
        let worker = || Arc::clone(&self.url);
        let state = match &self.state {
            Ok(state) => state,
            Err(why) => return Err(Absence::Disconnected { worker: worker(), why: Arc::clone(why) }),
        };
        if state.model != self.model {
            let (serves, model) = (state.model.clone(), self.model.clone());
            return Err(Absence::OtherModel { worker: worker(), serves, model });
        }
        if state.draining {
            return Err(Absence::Draining { worker: worker() });
        }
        Ok(state)
    }

    /// The version of an expert that new requests would get here: its digest.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(crate) fn resident(&self, expert: &Expert) -> Result<&str, Absence> {
        let state = self.serving()?;
        if expert.kind == ExpertKind::SlmModel {
            return Ok(&state.model_digest);
        }
        let absent = || match expert.kind {
            ExpertKind::ExternalModel => Absence::NotAsked(expert.name.clone()),
            _ => expert.refusal().unwrap_or_else(|| expert.not_loaded_on(&self.url)),
        };
        serving_adapter(state, &expert.name).map(|adapter| adapter.digest.as_str()).ok_or_else(absent)
    }

    /// Whether an adapter is loaded here and in no slot, so that a request would have to bring it there first.
    pub(crate) fn is_away(&self, expert: &Expert) -> bool {
        let state = self.state.as_ref().ok().filter(|_| expert.kind == ExpertKind::LoraAdapter);
        let adapter = state.and_then(|state| serving_adapter(state, &expert.name));
        let location = adapter.map(AdapterState::location);
        matches!(location, Some(AdapterLocation::HostMemory | AdapterLocation::Disk))
    }

    /// Bytes of an expert in this worker's memory, if it is loaded.
    pub(crate) fn bytes_of(&self, expert: &Expert) -> Option<u64> {
        let state = self.serving().ok()?;
        if expert.kind == ExpertKind::LoraAdapter {
            return serving_adapter(state, &expert.name).map(|adapter| adapter.bytes);
        }
        let in_memory = state.adapters.iter().filter(|adapter| adapter.location() != AdapterLocation::Disk);
        let adapters: u64 = in_memory.map(|adapter| adapter.bytes).sum();
        state.resident_bytes.checked_sub(adapters)
    }

    pub(crate) fn open_streams(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }
}

fn serving_adapter<'s>(state: &'s WorkerState, name: &str) -> Option<&'s AdapterState> {
    state.adapters.iter().find(|adapter| adapter.name == name && adapter.phase() == AdapterPhase::Serving)
}

impl Index {
    /// Routes that are as they were in `before` are not compiled again.
    pub(crate) fn new(swarm: Arc<Swarm>, before: &Self) -> Self {
        // A name stands for one thing. Sources admit one object for each name; of two that came all the same, the first
        // keeps it, so that nothing that is added can take a name away.
        let mut names: HashMap<String, Entry> = HashMap::new();
        let mut broken_rules = Vec::new();
        for model in &swarm.models {
            names.entry(model.name.clone()).or_insert_with(|| Entry::Expert(Expert::from(model)));
        }
        for adapter in &swarm.adapters {
            names.entry(adapter.name.clone()).or_insert_with(|| Entry::Expert(Expert::from(adapter)));
        }
        for external in &swarm.externals {
            names.entry(external.name.clone()).or_insert_with(|| Entry::Expert(Expert::from(external)));
        }
        let of_models = swarm.models.iter().map(|model| (model.name.as_str(), model.expert.examples.as_slice()));
        let of_adapters = swarm.adapters.iter().map(|it| (it.name.as_str(), it.expert.examples.as_slice()));
        let of_externals = swarm.externals.iter().map(|it| (it.name.as_str(), it.expert.examples.as_slice()));
        // Models last, for theirs are the names.
        let examples: HashMap<&str, &[String]> = of_externals.chain(of_adapters).chain(of_models).collect();
        for route in &swarm.routes {
            let known = match before.names.get(&route.name) {
                Some(Entry::Route(known)) => Some(known),
                _ => None,
            };
            let compiled = Route::reuse(known, &route.name, &route.spec, |target| {
                examples.get(target.name.as_str()).copied().unwrap_or_default()
            });
            let broken = compiled.broken().map(|(number, error)| (route.name.clone(), number, error.to_string()));
            broken_rules.extend(broken);
            names.entry(route.name.clone()).or_insert(Entry::Route(compiled));
        }
        Self { swarm, names, broken_rules }
    }

    pub(crate) fn expert(&self, name: &str) -> Option<&Expert> {
        match self.names.get(name) {
            Some(Entry::Expert(expert)) => Some(expert),
            _ => None,
        }
    }

    pub(crate) fn route(&self, name: &str) -> Option<&Arc<Route>> {
        match self.names.get(name) {
            Some(Entry::Route(route)) => Some(route),
            _ => None,
        }
    }
}

impl From<&Model> for Expert {
    fn from(model: &Model) -> Self {
        Self {
            kind: ExpertKind::SlmModel,
            name: model.name.clone(),
            model: model.name.clone(),
            digest: model.digest.clone(),
            description: model.expert.description.clone().unwrap_or_default(),
            refused: model.refused.clone(),
        }
    }
}

impl From<&Adapter> for Expert {
    fn from(adapter: &Adapter) -> Self {
        Self {
            kind: ExpertKind::LoraAdapter,
            name: adapter.name.clone(),
            model: adapter.model.clone(),
            digest: adapter.digest.clone(),
            description: adapter.expert.description.clone().unwrap_or_default(),
            refused: adapter.refused.clone(),
        }
    }
}

impl From<&External> for Expert {
    fn from(external: &External) -> Self {
        Self {
            kind: ExpertKind::ExternalModel,
            name: external.name.clone(),
            model: String::new(),
            digest: String::new(),
            description: external.expert.description.clone().unwrap_or_default(),
            refused: String::new(),
        }
    }
}

impl Expert {
    /// Whether it is a model outside of the swarm.
    pub(crate) fn is_external(&self) -> bool {
        self.kind == ExpertKind::ExternalModel
    }

    /// The reason why no worker can load it until it changes.
    pub(crate) fn refusal(&self) -> Option<Absence> {
        let refused = || NotLoadable { kind: self.kind, name: self.name.clone(), why: self.refused.clone() };
        (!self.refused.is_empty()).then(refused).map(Absence::NotLoadable)
    }

    fn not_loaded_on(&self, worker: &Arc<str>) -> Absence {
        Absence::NotLoaded { worker: Arc::clone(worker), name: self.name.clone() }
    }

    /// As the protocol says it, with the digest of the version that is meant.
    pub(crate) fn to_proto(&self, digest: &str) -> slm_proto::v1::Expert {
        slm_proto::v1::Expert {
            kind: self.kind.into(),
            name: self.name.clone(),
            model: self.model.clone(),
            digest: digest.to_owned(),
        }
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! A view to decide over: model `smol` on workers a and b, adapters `banking` and `travel`, route `assistant`.

    use super::*;

    pub(crate) fn swarm() -> Swarm {
        serde_json::from_value(serde_json::json!({
            "generation": 1,
            "models": [{"name": "smol", "workers": ["http://a", "http://b"]}],
            "adapters": [
                {"name": "banking", "model": "smol"},
                {"name": "travel", "model": "smol", "digest": "sha256:t"},
            ],
            "routes": [{"name": "assistant", "spec": {
                "rules": [
                    {"when": "text.matches('(?i)account|card')", "to": {"kind": "LoraAdapter", "name": "banking"}},
                    {"when": "metadata.topic == 'travel'", "to": {"kind": "LoraAdapter", "name": "travel"}},
                ],
                "fallback": {"kind": "SlmModel", "name": "smol"},
            }}],
        }))
        .expect("a swarm")
    }

    pub(crate) fn state(adapters: &[&str]) -> WorkerState {
        let adapter = |name: &&str| AdapterState {
            name: (*name).to_owned(),
            digest: format!("sha256:{}", &name[..1]),
            phase: AdapterPhase::Serving.into(),
            bytes: 10,
            ..Default::default()
        };
        WorkerState {
            sequence: 1,
            model: "smol".to_owned(),
            model_digest: "sha256:m".to_owned(),
            adapters: adapters.iter().map(adapter).collect(),
            sequences_max: 8,
            resident_bytes: 1000 + 10 * adapters.len() as u64,
            ..Default::default()
        }
    }

    pub(crate) fn worker(url: &str, state: Option<WorkerState>) -> Arc<Worker> {
        Arc::new(Worker {
            url: url.into(),
            model: "smol".to_owned(),
            seen: state.as_ref().map_or(0, |state| state.sequence),
            state: state.map(Arc::new).ok_or_else(|| "connection refused".into()),
            open: Arc::default(),
        })
    }

    pub(crate) fn view(workers: Vec<Arc<Worker>>) -> View {
        View { index: Arc::new(Index::new(Arc::new(swarm()), &Index::default())), workers, egress: Vec::new() }
    }
}

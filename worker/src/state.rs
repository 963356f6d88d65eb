//! State stream: one [`v1::WorkerState`], published on every change.
//!
//! Changes of adapters or of draining are published at once, load at most every [`LOAD_INTERVAL`].

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use slm_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    adapters::{Location, Resident},
    engine::EngineStats,
    model::{Model, Work},
};

/// Longest staleness of the published load.
const LOAD_INTERVAL: Duration = Duration::from_millis(100);

/// Publishes until `ended`, the final state included. The streams end with it.
pub(crate) async fn publish(
    model: Arc<Model>,
    mut draining: watch::Receiver<bool>,
    state: watch::Sender<v1::WorkerState>,
    ended: CancellationToken,
) {
    let mut adapters = model.adapters.subscribe();
    let mut tick = tokio::time::interval(LOAD_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rate = Rate::new(model.stats());
    loop {
        let last = tokio::select! {
            () = ended.cancelled() => true,
            _ = tick.tick() => false,
            changed = adapters.changed() => changed.is_err(),
            changed = draining.changed() => changed.is_err(),
        };
        let stats = model.stats();
        let next = describe(&model, stats, rate.update(stats, Instant::now()), *draining.borrow());
        state.send_if_modified(|current| {
            let next = v1::WorkerState { sequence: current.sequence, ..next };
            if *current == next {
                return false;
            }
            *current = v1::WorkerState { sequence: current.sequence + 1, ..next };
            true
        });
        if last {
            return;
        }
    }
}

/// The current state of `model`, numbered 0.
pub(crate) fn describe(model: &Model, stats: EngineStats, tokens_per_second: f32, draining: bool) -> v1::WorkerState {
    let (slots, used) = model.adapters.slots();
    let residents = model.adapters.residents();
    let in_memory = residents.iter().filter(|resident| resident.location != Location::Disk);
    let adapter_bytes: u64 = in_memory.map(|resident| resident.version.bytes).sum();
    let counts = model.permits().counts();
    let (context_length, sequences_max, kv_tokens_max) = match &model.work {
        Work::Generate(generator) => {
            let engine = &generator.engine;
            (engine.context_length(), engine.sequences_max(), engine.cache_tokens_max())
        }
        Work::Encode(encoder) => (encoder.embedder.context_length(), encoder.embedder.texts_max(), 0),
    };
    v1::WorkerState {
        sequence: 0,
        model: model.name.clone(),
        model_digest: model.bundle.info.digest.clone(),
        precision: model.precision().to_string(),
        context_length: context_length as u32,
        adapters: residents.into_iter().map(adapter_state).collect(),
        adapter_slots_free: (slots - used) as u32,
        adapter_slots: slots as u32,
        sequences_max: sequences_max as u32,
        sequences_running: stats.running as u32,
        requests_waiting: counts.queued as u32,
        answers_unread: counts.unread as u32,
        tokens_queued: stats.prompt_tokens_queued as u64,
        tokens_per_second,
        kv_tokens_used: stats.cache_tokens as u64,
        kv_tokens_max: kv_tokens_max as u64,
        draining,
        prompt_tokens_total: stats.prompt_tokens_processed,
        execution_provider: model.provider.to_string(),
        task: model.task().to_string(),
        vector_size: model.vector_size() as u32,
        flavour: model.bundle.info.flavour.to_string(),
        nodes: model.nodes.iter().map(|(provider, &nodes)| provider_nodes(provider, nodes)).collect(),
        resident_bytes: model.weight_bytes + adapter_bytes + model.cache_bytes + model.state_bytes + model.logits_bytes,
    }
}

fn provider_nodes(provider: &str, nodes: usize) -> v1::ProviderNodes {
    v1::ProviderNodes { provider: provider.to_owned(), nodes: u32::try_from(nodes).unwrap_or(u32::MAX) }
}

/// A loaded version in the protocol's terms.
pub(crate) fn adapter_state(resident: Resident) -> v1::AdapterState {
    let phase = if resident.serving { v1::AdapterPhase::Serving } else { v1::AdapterPhase::Retiring };
    let location = match resident.location {
        Location::Slot => v1::AdapterLocation::Slot,
        Location::HostMemory => v1::AdapterLocation::HostMemory,
        Location::Disk => v1::AdapterLocation::Disk,
    };
    let version = &resident.version;
    let info = &version.info;
    let since_epoch = info.loaded_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    v1::AdapterState {
        name: info.name.clone(),
        digest: info.digest.clone(),
        source: info.source.clone(),
        source_digest: info.source_digest.clone(),
        phase: phase.into(),
        generation: version.generation,
        scale: info.scale,
        rank_max: info.rank_max as u32,
        target_modules: info.target_modules.clone(),
        bytes: version.bytes,
        active_requests: resident.requests as u32,
        load_ms: info.load_time.as_millis() as u32,
        loaded_at_ms: since_epoch.as_millis() as u64,
        location: location.into(),
        pinned: info.pinned,
    }
}

/// Tokens per second over about the last second.
struct Rate {
    since: Instant,
    tokens: u64,
    last: f32,
}

impl Rate {
    fn new(stats: EngineStats) -> Self {
        Self { since: Instant::now(), tokens: stats.tokens_generated, last: 0.0 }
    }

    fn update(&mut self, stats: EngineStats, now: Instant) -> f32 {
        let seconds = now.duration_since(self.since).as_secs_f32();
        if seconds >= 1.0 {
            self.last = (stats.tokens_generated - self.tokens) as f32 / seconds;
            (self.since, self.tokens) = (now, stats.tokens_generated);
        }
        self.last
    }
}

//! Readiness and metrics of the worker.

use std::sync::{Arc, OnceLock};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use slm_probes::{Readiness, Subject};
use slm_proto::v1::WorkerState;
use tokio::sync::watch;

use crate::{
    adapters::AdapterMetrics,
    serving_metrics::{ServingMetrics, picker_metrics},
};

/// State behind the probes; not ready until [`open`](Self::open).
#[derive(Debug, Default)]
pub(crate) struct WorkerProbe {
    open: OnceLock<Open>,
}

/// What an open model says of itself.
#[derive(Debug)]
struct Open {
    state: watch::Receiver<WorkerState>,
    adapters: AdapterMetrics,
    serving: ServingMetrics,
}

impl WorkerProbe {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Reports ready from now on, with this state.
    pub(crate) fn open(&self, state: watch::Receiver<WorkerState>, adapters: AdapterMetrics, serving: ServingMetrics) {
        // Called once.
        let _ = self.open.set(Open { state, adapters, serving });
    }
}

impl Subject for WorkerProbe {
    fn readiness(&self) -> Readiness {
        match self.open.get() {
            None => Readiness::missing("the model is being opened"),
            Some(open) if open.state.borrow().draining => Readiness::missing("draining: running requests are finished"),
            Some(_) => Readiness::ready(),
        }
    }

    fn metrics(&self) -> String {
        let open = self.open.get();
        let state = open.map(|open| open.state.borrow().clone()).unwrap_or_default();
        let mut own = registry(&state);
        // Names of others have no prefix of ours.
        let mut registry = Registry::default();
        picker_metrics(&state, &mut registry);
        if let Some(open) = open {
            open.adapters.register(&mut own);
            open.serving.register(&mut registry);
        }
        let (mut text, mut rest) = (String::new(), String::new());
        // Writing to a string does not fail.
        let _ = encode(&mut rest, &own).and_then(|()| encode(&mut text, &registry));
        // The text ends once.
        format!("{}{text}", rest.trim_end_matches("# EOF\n"))
    }
}

/// Metrics from the state stream, built for each scrape.
fn registry(state: &WorkerState) -> Registry {
    let mut registry = Registry::with_prefix("slm_worker");
    let mut gauge = |name: &str, help: &str, value: f64| {
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge("sequences_running", "Requests that generate", state.sequences_running.into());
    gauge("sequences_max", "Requests that may generate at once", state.sequences_max.into());
    gauge("requests_waiting", "Requests that wait for a place", state.requests_waiting.into());
    gauge("answers_unread", "Answers that are complete and not read yet", state.answers_unread.into());
    gauge("tokens_queued", "Prompt tokens not processed yet", state.tokens_queued as f64);
    gauge("tokens_per_second", "Generated tokens a second, over the last second", state.tokens_per_second.into());
    gauge("kv_tokens_used", "Cache positions in use", state.kv_tokens_used as f64);
    gauge("kv_tokens_max", "Cache positions", state.kv_tokens_max as f64);
    gauge("adapter_slots", "Adapters that may be in a slot at a time", state.adapter_slots.into());
    gauge("adapter_slots_free", "Slots without an adapter", state.adapter_slots_free.into());
    gauge("adapters_loaded", "Adapters that requests may name, in a slot or not", state.adapters.len() as f64);
    gauge("resident_bytes", "Bytes of weights, adapters and full cache", state.resident_bytes as f64);
    gauge("draining", "1 while no new request is taken", u8::from(state.draining).into());
    let computed = Counter::<u64>::default();
    computed.inc_by(state.prompt_tokens_total);
    // The format adds `_total`.
    registry.register("prompt_tokens", "Prompt tokens computed, without those from the prefix cache", computed);
    // Names are those of objects, not of callers: as many as a worker may have.
    let adapters = Family::<[(&'static str, String); 1], Gauge>::default();
    for adapter in &state.adapters {
        let label = [("adapter", adapter.name.clone())];
        adapters.get_or_create(&label).inc_by(i64::from(adapter.active_requests));
    }
    registry.register("adapter_requests_running", "Requests that generate, by adapter", adapters);
    registry
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::AdapterState;

    use super::*;

    #[test]
    fn tells_what_the_state_says() {
        let probe = WorkerProbe::new();
        assert!(!probe.readiness().ready);
        let adapter = AdapterState { name: "banking".to_owned(), active_requests: 3, ..AdapterState::default() };
        let state = WorkerState {
            sequences_running: 4,
            prompt_tokens_total: 7,
            adapters: vec![adapter],
            ..WorkerState::default()
        };
        let (sender, receiver) = watch::channel(state);
        let adapters = crate::adapters::Adapters::new(1, 0, 0);
        adapters.metrics().waited(crate::adapters::Location::Disk, 0.02);
        probe.open(receiver, adapters.metrics().clone(), ServingMetrics::new());
        assert!(probe.readiness().ready);
        let text = probe.metrics();
        assert!(text.contains("slm_worker_sequences_running 4"), "{text}");
        assert!(text.contains("slm_worker_prompt_tokens_total 7"), "{text}");
        assert!(text.contains("slm_worker_adapter_requests_running{adapter=\"banking\"} 3"), "{text}");
        assert!(text.contains("slm_worker_adapter_wait_seconds_count{from=\"disk\"} 1"), "{text}");
        assert!(text.contains("slm_worker_adapter_evictions_total 0"), "{text}");
        assert!(text.contains("vllm:num_requests_running 4"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1, "{text}");
        sender.send_modify(|state| state.draining = true);
        assert!(!probe.readiness().ready);
    }
}

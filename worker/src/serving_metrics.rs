//! Metrics of answers: OpenTelemetry's names where it has some, those that pickers of the Gateway API read, and counters by
//! adapter.
//!
//! Histograms are those of the base model and all of its adapters together; a histogram for each of hundreds of adapters would be
//! thousands of series. Counters are by adapter.

use std::time::{Instant, SystemTime};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use slm_proto::v1::WorkerState;

/// Bounds in seconds, as OpenTelemetry's semantic conventions for generative AI advise them.
const TO_FIRST_TOKEN: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const PER_OUTPUT_TOKEN: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const DURATION: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    gen_ai_request_model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExpertLabel {
    /// Name of the adapter, or of the base model.
    expert: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokensLabel {
    expert: String,
    kind: &'static str,
}

type Times = Family<ModelLabel, Histogram, fn() -> Histogram>;

/// Counts and times since the worker started. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ServingMetrics {
    first_token: Times,
    per_output_token: Times,
    duration: Times,
    requests: Family<ExpertLabel, Counter>,
    tokens: Family<TokensLabel, Counter>,
}

/// Follows one answer; one that is dropped before its end was cancelled.
#[derive(Debug)]
pub(crate) struct AnswerMeter {
    metrics: ServingMetrics,
    model: String,
    expert: String,
    begun: Instant,
    first: Option<Instant>,
    outcome: &'static str,
}

impl ServingMetrics {
    pub(crate) fn new() -> Self {
        Self {
            first_token: Family::new_with_constructor(|| Histogram::new(TO_FIRST_TOKEN)),
            per_output_token: Family::new_with_constructor(|| Histogram::new(PER_OUTPUT_TOKEN)),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION)),
            requests: Family::default(),
            tokens: Family::default(),
        }
    }

    /// An answer of `expert`, `model` or an adapter of it, to a request that came at `begun`.
    pub(crate) fn answer(&self, model: &str, expert: &str, begun: Instant) -> AnswerMeter {
        let (model, expert) = (model.to_owned(), expert.to_owned());
        AnswerMeter { metrics: self.clone(), model, expert, begun, first: None, outcome: "cancelled" }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let names = [
            ("gen_ai_server_time_to_first_token_seconds", "Time to generate the first token", &self.first_token),
            (
                "gen_ai_server_time_per_output_token_seconds",
                "Time per token after the first one",
                &self.per_output_token,
            ),
            (
                "gen_ai_server_request_duration_seconds",
                "Time from the request to the end of its answer",
                &self.duration,
            ),
        ];
        for (name, help, times) in names {
            registry.register(name, help, times.clone());
        }
        let (requests, tokens) = (self.requests.clone(), self.tokens.clone());
        registry.register("slm_worker_expert_requests", "Answers that ended, by base model or adapter", requests);
        registry.register(
            "slm_worker_expert_tokens",
            "Tokens of prompts and answers, by base model or adapter",
            tokens,
        );
    }
}

impl AnswerMeter {
    /// A token was generated.
    pub(crate) fn token(&mut self) {
        if self.first.is_none() {
            let now = Instant::now();
            self.first = Some(now);
            self.times(&self.metrics.first_token).observe(now.duration_since(self.begun).as_secs_f64());
        }
    }

    /// The answer is complete.
    pub(crate) fn finished(&mut self, prompt_tokens: u32, completion_tokens: u32) {
        self.outcome = "ok";
        if let Some(first) = self.first.filter(|_| completion_tokens > 1) {
            let each = first.elapsed().as_secs_f64() / f64::from(completion_tokens - 1);
            self.times(&self.metrics.per_output_token).observe(each);
        }
        for (kind, tokens) in [("prompt", prompt_tokens), ("completion", completion_tokens)] {
            let label = TokensLabel { expert: self.expert.clone(), kind };
            self.metrics.tokens.get_or_create(&label).inc_by(tokens.into());
        }
    }

    /// The answer ended with an error.
    pub(crate) fn failed(&mut self) {
        self.outcome = "failed";
    }

    fn times<'m>(&self, times: &'m Times) -> impl std::ops::Deref<Target = Histogram> + use<'m> {
        times.get_or_create(&ModelLabel { gen_ai_request_model: self.model.clone() })
    }
}

impl Drop for AnswerMeter {
    fn drop(&mut self) {
        let label = ExpertLabel { expert: self.expert.clone(), outcome: self.outcome };
        self.metrics.requests.get_or_create(&label).inc();
        self.times(&self.metrics.duration).observe(self.begun.elapsed().as_secs_f64());
    }
}

/// What endpoint pickers of the Gateway API's inference extension read of a model server, under vLLM's names.
pub(crate) fn picker_metrics(state: &WorkerState, registry: &mut Registry) {
    let mut gauge = |name: &str, help: &str, value: f64| {
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge("vllm:num_requests_running", "Requests that generate", state.sequences_running.into());
    gauge("vllm:num_requests_waiting", "Requests that wait for a place", state.requests_waiting.into());
    let used = state.kv_tokens_used as f64 / (state.kv_tokens_max.max(1)) as f64;
    gauge("vllm:kv_cache_usage_perc", "Share of the KV cache in use; 1 is all of it", used);
    gauge("vllm:gpu_cache_usage_perc", "The same under its former name", used);
    let info = Family::<[(&'static str, String); 3], Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    let busy = state.adapters.iter().filter(|adapter| adapter.active_requests > 0);
    let running: Vec<&str> = busy.map(|adapter| adapter.name.as_str()).collect();
    let labels = [
        ("max_lora", state.adapter_slots.to_string()),
        ("running_lora_adapters", running.join(",")),
        ("waiting_lora_adapters", String::new()),
    ];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    info.get_or_create(&labels).set(now.as_secs_f64());
    registry.register("vllm:lora_requests_info", "Adapters with requests; the value is the time of this scrape", info);
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use slm_proto::v1::AdapterState;

    use super::*;

    #[test]
    fn answers_are_counted_by_expert_and_timed_by_model() {
        let metrics = ServingMetrics::new();
        let mut answer = metrics.answer("smol", "banking", Instant::now());
        answer.token();
        answer.token();
        answer.finished(7, 2);
        drop(answer);
        drop(metrics.answer("smol", "smol", Instant::now()));
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "gen_ai_server_time_to_first_token_seconds_count{gen_ai_request_model=\"smol\"} 1",
            "gen_ai_server_time_per_output_token_seconds_count{gen_ai_request_model=\"smol\"} 1",
            "gen_ai_server_request_duration_seconds_count{gen_ai_request_model=\"smol\"} 2",
            "slm_worker_expert_requests_total{expert=\"banking\",outcome=\"ok\"} 1",
            "slm_worker_expert_requests_total{expert=\"smol\",outcome=\"cancelled\"} 1",
            "slm_worker_expert_tokens_total{expert=\"banking\",kind=\"prompt\"} 7",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn pickers_find_what_vllm_has() {
        let adapter = |name: &str, active_requests| AdapterState {
            name: name.to_owned(),
            active_requests,
            ..AdapterState::default()
        };
        let state = WorkerState {
            adapters: vec![adapter("banking", 2), adapter("idle", 0), adapter("travel", 1)],
            adapter_slots: 16,
            sequences_running: 3,
            kv_tokens_used: 5,
            kv_tokens_max: 10,
            ..WorkerState::default()
        };
        let mut registry = Registry::default();
        picker_metrics(&state, &mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let labels = "max_lora=\"16\",running_lora_adapters=\"banking,travel\",waiting_lora_adapters=\"\"";
        assert!(text.contains(&format!("vllm:lora_requests_info{{{labels}}} ")), "{text}");
        assert!(
            text.contains("vllm:num_requests_running 3.0") && text.contains("vllm:kv_cache_usage_perc 0.5"),
            "{text}"
        );
    }
}

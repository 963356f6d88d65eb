//! Metrics, as `/metrics` gives them. Labels have few values, all of ours: no name that a caller chose becomes one.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tonic::Code;

use crate::{quota::Pass, swarm::Swarm};

/// Seconds; from a routing error to a long answer.
const DURATIONS: [f64; 12] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

/// The API of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, missing_docs)] // The names are the label values.
pub(crate) enum Api {
    grpc_generate,
    grpc_complete,
    grpc_embed,
    grpc_tokens,
    grpc_rerank,
    grpc_classify,
    http_chat,
    http_completions,
    http_responses,
    http_embeddings,
    http_tokens,
    http_rerank,
    http_classify,
    anthropic_messages,
    ollama_chat,
    ollama_generate,
    ollama_embed,
    inference_http_infer,
    inference_http_generate,
    inference_grpc_infer,
    inference_grpc_stream,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabel {
    api: Api,
}

/// Callers have their names from the access folder: few, and not of their own choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallerLabel {
    caller: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallerTokensLabel {
    caller: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    api: Api,
    outcome: &'static str,
}

/// Routes have their names from manifests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
    /// `label` or `similarity`.
    by: &'static str,
    scope: &'static str,
}

/// What became of an answer that was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // The names are the label values.
pub(crate) enum Escalation {
    /// It was confident enough.
    kept,
    /// A larger target answered.
    escalated,
    /// The budget was spent.
    spent,
    /// The larger target did not answer.
    failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EscalationLabel {
    route: String,
    outcome: Escalation,
}

/// What became of the answers of an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // The names are the label values.
pub(crate) enum Together {
    /// Every expert that was waited for answered.
    whole,
    /// Some did not, and enough did.
    partial,
    /// Too few did.
    too_few,
    /// The judge did not choose.
    judge_failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TogetherLabel {
    route: String,
    outcome: Together,
}

/// What a copy of a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)] // The names are the label values.
pub(crate) enum Copied {
    /// The candidate says what the answer says.
    agree,
    differ,
    /// The candidate did not answer in time.
    failed,
    /// No copy was sent: too many are on their way, or the answer is too long to be compared.
    skipped,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CopiedLabel {
    route: String,
    to: String,
    result: Copied,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLabel {
    by: &'static str,
}

/// All of them.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<OutcomeLabel, Counter>,
    caller_requests: Family<CallerLabel, Counter>,
    caller_tokens: Family<CallerTokensLabel, Counter>,
    unauthorized: Counter,
    duration: Family<ApiLabel, Histogram>,
    first_token: Family<ApiLabel, Histogram>,
    prompt_tokens: Counter,
    completion_tokens: Counter,
    retries: Counter,
    scores: Family<RouteLabel, Counter>,
    score_time: Family<ByLabel, Histogram>,
    judged: Family<EscalationLabel, Counter>,
    together: Family<TogetherLabel, Counter>,
    copied: Family<CopiedLabel, Counter>,
    running: Gauge,
    queued: Gauge,
    workers: Gauge,
    workers_up: Gauge,
    generation: Gauge<u64, AtomicU64>,
    undecodable: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram = || Histogram::new(DURATIONS);
        let mut metrics = Self {
            registry: Registry::with_prefix("slm_router"),
            requests: Family::default(),
            caller_requests: Family::default(),
            caller_tokens: Family::default(),
            unauthorized: Counter::default(),
            duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            first_token: Family::new_with_constructor(histogram as fn() -> Histogram),
            prompt_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            retries: Counter::default(),
            scores: Family::default(),
            score_time: Family::new_with_constructor(histogram as fn() -> Histogram),
            judged: Family::default(),
            together: Family::default(),
            copied: Family::default(),
            running: Gauge::default(),
            queued: Gauge::default(),
            workers: Gauge::default(),
            workers_up: Gauge::default(),
            generation: Gauge::default(),
            undecodable: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Requests ended, by outcome", metrics.requests.clone());
        registry.register(
            "caller_requests",
            "Requests ended, by the caller whose token they had",
            metrics.caller_requests.clone(),
        );
        registry.register(
            "caller_tokens",
            "Tokens of prompts answered and tokens generated, by caller",
            metrics.caller_tokens.clone(),
        );
        registry.register("unauthorized", "Requests without a token that is known", metrics.unauthorized.clone());
        registry.register("request_duration_seconds", "From request to last token", metrics.duration.clone());
        registry.register("first_token_seconds", "From request to first token", metrics.first_token.clone());
        registry.register("prompt_tokens", "Tokens of prompts answered", metrics.prompt_tokens.clone());
        registry.register("completion_tokens", "Tokens generated", metrics.completion_tokens.clone());
        registry.register(
            "retries",
            "Requests sent to another worker before their first token",
            metrics.retries.clone(),
        );
        registry.register("requests_running", "Requests that have not ended", metrics.running.clone());
        registry.register(
            "requests_holding",
            "Requests that wait for their expert to be served",
            metrics.queued.clone(),
        );
        registry.register("workers", "Workers that the swarm lists", metrics.workers.clone());
        registry.register("workers_connected", "Workers with an open state stream", metrics.workers_up.clone());
        registry.register("undecodable_objects", "Objects that do not decode", metrics.undecodable.clone());
        registry.register("swarm_generation", "Generation of the swarm's snapshot", metrics.generation.clone());
        metrics.register_routes();
        metrics
    }

    /// What routes do with requests.
    fn register_routes(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "scores",
            "Requests scored by the classifier (label) or the examples (similarity) of a route, by scope: in, unsure, out, or error",
            self.scores.clone(),
        );
        registry.register(
            "score_seconds",
            "Time until a request had its scores, with what workers took to read it",
            self.score_time.clone(),
        );
        registry.register(
            "cascade_answers",
            "Answers that a cascade judged, by what became of them: kept, escalated, spent (the budget), or failed (the larger target)",
            self.judged.clone(),
        );
        registry.register(
            "ensembles",
            "Requests that an ensemble was asked, by what came: whole, partial or too_few answers; and judge_failed",
            self.together.clone(),
        );
        registry.register(
            "shadow",
            "Copies of requests that a candidate got, by whether it agrees: agree, differ, failed, or skipped (not sent)",
            self.copied.clone(),
        );
    }

    /// The Prometheus text format.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(crate) fn swarm(&self, swarm: &Swarm, workers: usize, up: usize) {
        self.generation.set(swarm.generation);
        self.undecodable.set(swarm.undecodable_objects as i64);
        self.workers.set(i64::try_from(workers).unwrap_or(i64::MAX));
        self.workers_up.set(i64::try_from(up).unwrap_or(i64::MAX));
    }

    pub(crate) fn unauthorized(&self) {
        self.unauthorized.inc();
    }

    /// A request was scored for `route`, by its label or its similarity.
    pub(crate) fn scored(&self, by: &'static str, route: &str, scope: &'static str, begun: Instant) {
        self.scores.get_or_create(&RouteLabel { route: route.to_owned(), by, scope }).inc();
        self.score_time.get_or_create(&ByLabel { by }).observe(begun.elapsed().as_secs_f64());
    }

    /// The cascade of `route` has judged an answer.
    pub(crate) fn judged(&self, route: &str, outcome: Escalation) {
        self.judged.get_or_create(&EscalationLabel { route: route.to_owned(), outcome }).inc();
    }

    /// The ensemble of `route` was asked.
    pub(crate) fn together(&self, route: &str, outcome: Together) {
        self.together.get_or_create(&TogetherLabel { route: route.to_owned(), outcome }).inc();
    }

    /// A copy of a request for `route` was for the candidate `to`.
    pub(crate) fn copied(&self, route: &str, to: &str, result: Copied) {
        self.copies(route, to, result).inc();
    }

    /// The number of copies that came to `result`.
    pub(crate) fn copies(&self, route: &str, to: &str, result: Copied) -> Counter {
        let label = CopiedLabel { route: route.to_owned(), to: to.to_owned(), result };
        self.copied.get_or_create(&label).clone()
    }

    pub(crate) fn retry(&self) {
        self.retries.inc();
    }

    /// Counts a request as waiting for its expert until the guard is dropped.
    pub(crate) fn queued(self: &Arc<Self>) -> Queued {
        self.queued.inc();
        Queued(Arc::clone(self))
    }
}

pub(crate) struct Queued(Arc<Metrics>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.dec();
    }
}

/// Follows one request; one that is dropped before its end counts as cancelled.
pub(crate) struct Meter {
    metrics: Arc<Metrics>,
    api: Api,
    caller: Option<Arc<str>>,
    begun: Instant,
    outcome: &'static str,
    /// Its place in the limits of its token.
    pass: Option<Pass>,
}

impl Meter {
    pub(crate) fn new(metrics: &Arc<Metrics>, api: Api, caller: Option<&Arc<str>>) -> Self {
        metrics.running.inc();
        Self {
            metrics: Arc::clone(metrics),
            api,
            caller: caller.cloned(),
            begun: Instant::now(),
            outcome: "cancelled",
            pass: None,
        }
    }

    /// It has a place in the limits of its token, until it ends.
    pub(crate) fn limited_by(&mut self, pass: Option<Pass>) {
        self.pass = pass;
    }

    pub(crate) fn first_token(&self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.metrics.first_token.get_or_create(&ApiLabel { api: self.api }).observe(seconds);
    }

    pub(crate) fn finished(&mut self, prompt_tokens: u32, completion_tokens: u32) {
        self.outcome = "ok";
        if let Some(pass) = &mut self.pass {
            pass.used(u64::from(prompt_tokens) + u64::from(completion_tokens));
        }
        self.metrics.prompt_tokens.inc_by(u64::from(prompt_tokens));
        self.metrics.completion_tokens.inc_by(u64::from(completion_tokens));
        if let Some(caller) = &self.caller {
            for (kind, tokens) in [("prompt", prompt_tokens), ("completion", completion_tokens)] {
                let label = CallerTokensLabel { caller: caller.to_string(), kind };
                self.metrics.caller_tokens.get_or_create(&label).inc_by(u64::from(tokens));
            }
        }
    }

    pub(crate) fn failed(&mut self, code: Code) {
        self.outcome = match code {
            Code::NotFound => "not_found",
            Code::InvalidArgument => "invalid_argument",
            Code::ResourceExhausted => "resource_exhausted",
            Code::Unavailable => "unavailable",
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::Cancelled => "cancelled",
            Code::FailedPrecondition => "failed_precondition",
            Code::PermissionDenied => "permission_denied",
            Code::OutOfRange => "out_of_range",
            Code::Unimplemented => "unimplemented",
            _ => "internal",
        };
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let metrics = &self.metrics;
        metrics.running.dec();
        metrics.requests.get_or_create(&OutcomeLabel { api: self.api, outcome: self.outcome }).inc();
        if let Some(caller) = &self.caller {
            let label = CallerLabel { caller: caller.to_string(), outcome: self.outcome };
            metrics.caller_requests.get_or_create(&label).inc();
        }
        metrics.duration.get_or_create(&ApiLabel { api: self.api }).observe(self.begun.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_request_counts_as_cancelled() {
        let metrics = Arc::new(Metrics::new());
        drop(Meter::new(&metrics, Api::http_chat, None));
        let mut meter = Meter::new(&metrics, Api::grpc_generate, Some(&"team".into()));
        meter.finished(3, 5);
        drop(meter);
        let text = metrics.text().expect("text");
        assert!(text.contains("slm_router_requests_total{api=\"http_chat\",outcome=\"cancelled\"} 1"), "{text}");
        assert!(text.contains("slm_router_requests_total{api=\"grpc_generate\",outcome=\"ok\"} 1"), "{text}");
        assert!(text.contains("slm_router_completion_tokens_total 5"), "{text}");
        assert!(text.contains("slm_router_caller_requests_total{caller=\"team\",outcome=\"ok\"} 1"), "{text}");
        assert!(text.contains("slm_router_caller_tokens_total{caller=\"team\",kind=\"completion\"} 5"), "{text}");
    }
}

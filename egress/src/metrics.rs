//! Metrics, as `/metrics` gives them.

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use slm_proto::v1::{Cost, Usage};
use slm_redact::Kind;

/// Seconds of a call.
const DURATIONS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokensLabel {
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CostLabel {
    model: String,
    currency: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

/// The metrics of an egress.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<OutcomeLabel, Counter>,
    seconds: Family<ModelLabel, Histogram>,
    tokens: Family<TokensLabel, Counter>,
    cost: Family<CostLabel, Counter<f64, AtomicU64>>,
    retries: Family<ModelLabel, Counter>,
    circuit_open: Family<ModelLabel, Gauge<i64, AtomicI64>>,
    redacted: Family<KindLabel, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("slm_egress");
        let seconds = Family::<ModelLabel, Histogram>::new_with_constructor(|| Histogram::new(DURATIONS));
        let (requests, tokens, cost) = (Family::default(), Family::default(), Family::default());
        let (retries, circuit_open, redacted) = (Family::default(), Family::default(), Family::default());
        registry.register("requests", "Requests by ExternalModel and outcome", Family::clone(&requests));
        registry.register("seconds", "Time of a call, from the request to its last piece", Family::clone(&seconds));
        registry.register("tokens", "Tokens as endpoints count them", Family::clone(&tokens));
        registry.register("cost", "Cost by the price of the ExternalModel", Family::clone(&cost));
        registry.register("retries", "Requests that were sent again", Family::clone(&retries));
        registry.register("circuit_open", "1 while the ExternalModel is not asked", Family::clone(&circuit_open));
        registry.register("redacted", "Values that were replaced, by their kind", Family::clone(&redacted));
        Self { registry, requests, seconds, tokens, cost, retries, circuit_open, redacted }
    }

    pub(crate) fn ended(&self, model: &str, outcome: &'static str, took: Duration) {
        self.requests.get_or_create(&OutcomeLabel { model: model.to_owned(), outcome }).inc();
        self.seconds.get_or_create(&ModelLabel { model: model.to_owned() }).observe(took.as_secs_f64());
    }

    pub(crate) fn used(&self, model: &str, usage: Usage, cost: Option<&Cost>) {
        let kinds = [("prompt", usage.prompt_tokens), ("completion", usage.completion_tokens)];
        for (kind, count) in kinds {
            self.tokens.get_or_create(&TokensLabel { model: model.to_owned(), kind }).inc_by(count.into());
        }
        if let Some(Cost { amount, currency }) = cost {
            let label = CostLabel { model: model.to_owned(), currency: currency.clone() };
            self.cost.get_or_create(&label).inc_by(*amount);
        }
    }

    pub(crate) fn retried(&self, model: &str) {
        self.retries.get_or_create(&ModelLabel { model: model.to_owned() }).inc();
    }

    pub(crate) fn circuit(&self, model: &str, open: bool) {
        self.circuit_open.get_or_create(&ModelLabel { model: model.to_owned() }).set(open.into());
    }

    pub(crate) fn redacted(&self, kind: Kind, count: usize) {
        self.redacted.get_or_create(&KindLabel { kind: kind.to_string() }).inc_by(count as u64);
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}

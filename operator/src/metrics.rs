//! Prometheus metrics. Labels have a bounded number of values, all of our own.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Buckets in seconds, from a store lookup to a slow API server.
const DURATIONS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabel {
    kind: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

/// Outcome of a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded.
    Ok,
    /// It failed and is retried.
    Error,
    /// It panicked and is retried.
    Panic,
}

/// All metrics of the operator.
pub(crate) struct Metrics {
    registry: Registry,
    leading: Gauge,
    leader_seconds: Counter<f64, AtomicU64>,
    reconciles: Family<ReconcileLabel, Counter>,
    reconcile_seconds: Family<KindLabel, Histogram>,
    last_success: Family<KindLabel, Gauge<f64, AtomicU64>>,
    loads: Family<ReasonLabel, Counter>,
    undecodable: Family<KindLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("slm_operator"),
            leading: Gauge::default(),
            leader_seconds: Counter::default(),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            last_success: Family::default(),
            loads: Family::default(),
            undecodable: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "leading",
            "1 while this operator holds the lease and its controllers run",
            metrics.leading.clone(),
        );
        registry.register_with_unit(
            "leader",
            "Time for which this process has led",
            Unit::Seconds,
            metrics.leader_seconds.clone(),
        );
        registry.register("reconciles", "Reconciliations by kind and outcome", metrics.reconciles.clone());
        registry.register_with_unit(
            "reconcile",
            "Duration of reconciliations",
            Unit::Seconds,
            metrics.reconcile_seconds.clone(),
        );
        registry.register_with_unit(
            "last_success_timestamp",
            "When a reconciliation last went well, since 1970",
            Unit::Seconds,
            metrics.last_success.clone(),
        );
        registry.register(
            "loads",
            "Loads of adapters that ended, by reason: Loaded, or why not",
            metrics.loads.clone(),
        );
        registry.register("undecodable_objects", "Objects that do not decode", metrics.undecodable.clone());
        metrics
    }
}

impl Metrics {
    pub(crate) fn leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    pub(crate) fn led(&self, time: Duration) {
        self.leader_seconds.inc_by(time.as_secs_f64());
    }

    pub(crate) fn reconciled(&self, kind: &str, outcome: Outcome, time: Duration) {
        let label = match outcome {
            Outcome::Ok => "ok",
            Outcome::Error => "error",
            Outcome::Panic => "panic",
        };
        let kind = KindLabel { kind: kind.to_owned() };
        self.reconciles.get_or_create(&ReconcileLabel { kind: kind.kind.clone(), outcome: label }).inc();
        self.reconcile_seconds.get_or_create(&kind).observe(time.as_secs_f64());
        if outcome == Outcome::Ok {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_success.get_or_create(&kind).set(now.as_secs_f64());
        }
    }

    pub(crate) fn loaded(&self, reason: &str) {
        // A reason sent by a worker becomes a label only if it is a single short word.
        let is_word = reason.len() <= 40 && reason.bytes().all(|byte| byte.is_ascii_alphabetic());
        let reason = if is_word { reason } else { "Other" }.to_owned();
        self.loads.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn undecodable(&self, counts: impl IntoIterator<Item = (String, usize)>) {
        self.undecodable.clear();
        for (kind, count) in counts {
            self.undecodable.get_or_create(&KindLabel { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// In the text format of OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let metrics = Metrics::default();
        metrics.leading(true);
        metrics.led(Duration::from_millis(1_500));
        metrics.reconciled("SlmModel", Outcome::Panic, Duration::from_millis(2));
        metrics.loaded("DigestMismatch");
        metrics.loaded("a sentence with\nanything in it");
        metrics.undecodable([("SlmModel".to_owned(), 2)]);
        let text = metrics.text();
        for line in [
            "slm_operator_leading 1",
            "slm_operator_leader_seconds_total 1.5",
            "slm_operator_reconciles_total{kind=\"SlmModel\",outcome=\"panic\"} 1",
            "slm_operator_reconcile_seconds_count{kind=\"SlmModel\"} 1",
            "slm_operator_loads_total{reason=\"DigestMismatch\"} 1",
            "slm_operator_loads_total{reason=\"Other\"} 1",
            "slm_operator_undecodable_objects{kind=\"SlmModel\"} 2",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        metrics.undecodable([]);
        assert!(!metrics.text().contains("undecodable_objects{"), "none any more");
    }
}

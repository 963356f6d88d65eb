//! Metrics of the places that adapters come from.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::Location;

/// Bounds of the histogram's buckets, in seconds.
const BUCKETS: [f64; 13] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

type Waits = Family<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>;

/// Counts and times since the worker started. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AdapterMetrics {
    waits: Waits,
    pub(super) evictions: Counter,
}

impl AdapterMetrics {
    pub(super) fn new() -> Self {
        Self { waits: Family::new_with_constructor(|| Histogram::new(BUCKETS)), evictions: Counter::default() }
    }

    /// A request had its adapter in a slot after so many seconds; `from` is where the adapter was when it asked.
    pub(crate) fn waited(&self, from: Location, seconds: f64) {
        self.waits.get_or_create(&[("from", from.name())]).observe(seconds);
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Seconds that a request waited for its adapter to be in a slot, by where the adapter was before";
        registry.register("adapter_wait_seconds", help, self.waits.clone());
        registry.register(
            "adapter_evictions",
            "Times that an adapter left its slot for another",
            self.evictions.clone(),
        );
    }
}

impl Location {
    /// As labels of metrics spell it.
    fn name(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::HostMemory => "host_memory",
            Self::Disk => "disk",
        }
    }
}

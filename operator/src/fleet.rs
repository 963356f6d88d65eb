//! Fleet: the worker pods, their adapters, and the loads requested of them.
//!
//! One task ([`run`]) owns it. It keeps a state stream to every worker pod, compares the adapters that the worker
//! reports with the desired ones, requests the difference, and triggers the reconciliation of affected objects.
//! [`slm_residency`] decides the requests; nothing is inferred from labels, logs or metrics.

mod controller;
mod desired_adapters;
mod pending_names;
mod pods;
mod state_diff;

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use kube::runtime::reflector::ObjectRef;
use slm_crds::{LoraAdapter, SlmModel};
use slm_proto::v1::WorkerState;
use slm_residency::Holdings;
use tokio::sync::mpsc;

pub(crate) use controller::{Inputs, run};
pub(crate) use desired_adapters::version;
pub(crate) use pending_names::PendingNames;

/// Bound on pending reconcile requests of a kind.
const RECONCILE_REQUESTS_MAX: usize = 1024;

/// One worker pod.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    /// Pod name.
    pub(crate) name: String,
    /// Name of its SlmModel.
    pub(crate) model: String,
    /// Last reported state, or the reason why there is none.
    pub(crate) state: Result<Arc<WorkerState>, Arc<str>>,
    /// Adapters that the worker holds, and the requests in flight.
    pub(crate) holdings: Holdings,
}

/// Every worker pod by name.
pub(crate) type Snapshot = BTreeMap<String, Arc<PodView>>;

/// The latest snapshot, readable by all controllers.
#[derive(Clone, Debug, Default)]
pub(crate) struct FleetView(Arc<ArcSwap<Snapshot>>);

impl FleetView {
    /// The latest snapshot.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}

/// Senders of reconcile requests to the controllers.
#[derive(Clone, Debug)]
pub(crate) struct ReconcileRequests {
    pub(crate) models: mpsc::Sender<ObjectRef<SlmModel>>,
    pub(crate) adapters: mpsc::Sender<ObjectRef<LoraAdapter>>,
}

/// Receiving ends of [`ReconcileRequests`].
#[derive(Debug)]
pub(crate) struct ReconcileStreams {
    /// Models whose workers changed.
    pub(crate) models: mpsc::Receiver<ObjectRef<SlmModel>>,
    /// Adapters whose residency changed.
    pub(crate) adapters: mpsc::Receiver<ObjectRef<LoraAdapter>>,
}

/// A connected pair of both.
#[must_use]
pub(crate) fn reconcile_requests() -> (ReconcileRequests, ReconcileStreams) {
    let (models, models_seen) = mpsc::channel(RECONCILE_REQUESTS_MAX);
    let (adapters, adapters_seen) = mpsc::channel(RECONCILE_REQUESTS_MAX);
    (ReconcileRequests { models, adapters }, ReconcileStreams { models: models_seen, adapters: adapters_seen })
}

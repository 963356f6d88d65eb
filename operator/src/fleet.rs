//! The workers, as they say themselves, and what is asked of them.
//!
//! One task owns all of it: it keeps a state stream to every worker pod, compares what each says that it holds with the
//! adapters that should be there, asks for the difference, and tells the controllers whose objects are concerned. What
//! is asked is decided in [`slm_residency`]; nothing here is inferred from labels, logs or metrics.

mod keeper;
mod marks;
mod pods;
mod telling;
mod wanted;

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use kube::runtime::reflector::ObjectRef;
use slm_crds::{LoraAdapter, SlmModel};
use slm_proto::v1::WorkerState;
use slm_residency::Holdings;
use tokio::sync::mpsc;

pub(crate) use keeper::{Inputs, run};
pub(crate) use marks::Marks;
pub(crate) use wanted::version;

/// Concerned objects that may wait to be told of.
const TOLD_MAX: usize = 1024;

/// One worker pod.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    /// Its name.
    pub(crate) name: String,
    /// The model that it serves.
    pub(crate) model: String,
    /// What it said last, or why there is nothing.
    pub(crate) state: Result<Arc<WorkerState>, Arc<str>>,
    /// What it holds, and what it was asked for.
    pub(crate) holdings: Holdings,
}

/// Every worker pod by name.
pub(crate) type Snapshot = BTreeMap<String, Arc<PodView>>;

/// What everyone may look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct FleetView(Arc<ArcSwap<Snapshot>>);

impl FleetView {
    /// The workers now.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}

/// Tells the controllers which objects something happened to.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) models: mpsc::Sender<ObjectRef<SlmModel>>,
    pub(crate) adapters: mpsc::Sender<ObjectRef<LoraAdapter>>,
}

/// The other end of [`Told`].
#[derive(Debug)]
pub(crate) struct Concerned {
    /// Models whose workers changed.
    pub(crate) models: mpsc::Receiver<ObjectRef<SlmModel>>,
    /// Adapters whose residency changed.
    pub(crate) adapters: mpsc::Receiver<ObjectRef<LoraAdapter>>,
}

/// Both ends.
#[must_use]
pub(crate) fn told() -> (Told, Concerned) {
    let (models, models_seen) = mpsc::channel(TOLD_MAX);
    let (adapters, adapters_seen) = mpsc::channel(TOLD_MAX);
    (Told { models, adapters }, Concerned { models: models_seen, adapters: adapters_seen })
}

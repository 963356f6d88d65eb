//! The worker over gRPC: generation for routers, control for whoever runs it, health and reflection.

mod access;
mod answer;
mod control;
mod generation;
mod status;

use std::sync::Arc;

use slm_artifacts::Store;
use slm_proto::v1;
use tokio::sync::{Semaphore, watch};

use crate::model::Model;

pub(crate) use access::Access;
pub(crate) use control::Control;
pub(crate) use generation::Generate;

/// What both services see.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) model: Arc<Model>,
    /// Where adapters are fetched to.
    pub(crate) store: Store,
    /// A permit for each adapter that may be packed at the same time.
    pub(crate) packing: Arc<Semaphore>,
    /// Set once no new request may begin.
    pub(crate) draining: watch::Receiver<bool>,
    /// The state as last published.
    pub(crate) state: watch::Receiver<v1::WorkerState>,
}

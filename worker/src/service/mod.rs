//! gRPC services of the worker: generation for routers, control for the operator or `slm up`, health and reflection.

mod access;
mod answer;
mod control;
mod generation;
mod input;
mod open_answers;
mod plan;
mod status;

use std::{sync::Arc, time::Duration};

use slm_artifacts::Store;
use slm_pool::FairPool;
use slm_proto::v1;
use tokio::sync::{Semaphore, watch};

use crate::model::Model;

pub(crate) use access::Access;
pub(crate) use control::Control;
pub(crate) use generation::Generate;
pub(crate) use input::token_bytes_max;
pub(crate) use open_answers::OpenAnswers;

/// State shared by the services.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) model: Arc<Model>,
    /// Store that adapters are fetched into.
    pub(crate) store: Store,
    /// Threads for long prompts.
    pub(crate) text: FairPool,
    /// Streaming answers.
    pub(crate) answers: Arc<OpenAnswers>,
    /// Bound on the duration of an adapter's load.
    pub(crate) load_timeout: Duration,
    /// One permit for each adapter that may be packed concurrently.
    pub(crate) packing: Arc<Semaphore>,
    /// True once draining has begun.
    pub(crate) draining: watch::Receiver<bool>,
    /// Last published state.
    pub(crate) state: watch::Receiver<v1::WorkerState>,
}

//! The worker over gRPC: generation for routers, control for whoever runs it, health and reflection.

mod access;
mod answer;
mod control;
mod generation;
mod input;
mod open_answers;
mod status;

use std::{sync::Arc, time::Duration};

use slm_artifacts::Store;
use slm_proto::v1;
use tokio::sync::{Semaphore, watch};

use crate::{model::Model, text_pool::TextPool};

pub(crate) use access::Access;
pub(crate) use control::Control;
pub(crate) use generation::Generate;
pub(crate) use input::token_bytes_max;
pub(crate) use open_answers::OpenAnswers;

/// What both services see.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) model: Arc<Model>,
    /// Where adapters are fetched to.
    pub(crate) store: Store,
    /// Threads for long prompts.
    pub(crate) text: TextPool,
    /// Answers that are being streamed.
    pub(crate) answers: Arc<OpenAnswers>,
    /// What a load of an adapter may take.
    pub(crate) load_timeout: Duration,
    /// A permit for each adapter that may be packed at the same time.
    pub(crate) packing: Arc<Semaphore>,
    /// Set once no new request may begin.
    pub(crate) draining: watch::Receiver<bool>,
    /// The state as last published.
    pub(crate) state: watch::Receiver<v1::WorkerState>,
}

//! gRPC services of the worker: generation, what encoders make of texts (`embeddings`) and tokens for routers, control for the
//! operator or `slm up`, health and reflection.

mod access;
mod answer;
mod control;
mod embeddings;
mod generation;
mod input;
mod open_answers;
mod paging;
mod plan;
mod prompt;
mod status;
mod tokens;

use std::{sync::Arc, time::Duration};

use slm_artifacts::Store;
use slm_pool::FairPool;
use slm_proto::v1;
use tokio::sync::{Semaphore, watch};
use tonic::Status;

use crate::{
    adapters::AdapterVersion,
    model::{Encoder, Generator, Model, Task, Work},
    serving_metrics::ServingMetrics,
};

pub(crate) use access::Access;
pub(crate) use control::Control;
pub(crate) use embeddings::Encode;
pub(crate) use generation::Generate;
pub(crate) use input::token_bytes_max;
pub(crate) use open_answers::OpenAnswers;
pub(crate) use tokens::Tokenize;

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
    /// One permit for each request for tokens that may be worked on concurrently.
    pub(crate) tokenizing: Arc<Semaphore>,
    /// One permit for each adapter that may be packed concurrently.
    pub(crate) packing: Arc<Semaphore>,
    /// True once draining has begun.
    pub(crate) draining: watch::Receiver<bool>,
    /// Last published state.
    pub(crate) state: watch::Receiver<v1::WorkerState>,
    /// Counts and times of answers.
    pub(crate) metrics: ServingMetrics,
}

impl Shared {
    /// What generates text, if the model does.
    fn generator(&self) -> Result<&Generator, Status> {
        match &self.model.work {
            Work::Generate(generator) => Ok(generator),
            Work::Encode(encoder) => Err(status::wrong_task(&self.model.name, encoder.task, Task::Generate)),
        }
    }

    /// What does `task` for texts, if the model does.
    fn encoder(&self, task: Task) -> Result<&Encoder, Status> {
        match &self.model.work {
            Work::Encode(encoder) if encoder.task == task => Ok(encoder),
            _ => Err(status::wrong_task(&self.model.name, self.model.task(), task)),
        }
    }

    /// The adapter of that name; `None` for the base model's own.
    fn expert(&self, name: &str) -> Result<Option<Arc<AdapterVersion>>, Status> {
        let model = &self.model;
        if name == model.name {
            return Ok(None);
        }
        model.adapters.version(name).map(Some).ok_or_else(|| {
            let mut known = model.adapters.names();
            known.push(model.name.clone());
            status::unknown_model(name, &known)
        })
    }

    fn describe(&self, adapter: Option<&AdapterVersion>) -> v1::Expert {
        let model = &self.model;
        let (kind, name, digest) = match adapter {
            None => (v1::ExpertKind::SlmModel, &model.name, &model.bundle.info.digest),
            Some(version) => (v1::ExpertKind::LoraAdapter, &version.info.name, &version.info.digest),
        };
        v1::Expert { kind: kind.into(), name: name.clone(), model: model.name.clone(), digest: digest.clone() }
    }
}

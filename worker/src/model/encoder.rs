//! A model that turns texts into vectors, scores or labels: its thread, its reader of texts, and its head.

use std::thread::JoinHandle;

use slm_convert::{
    bundle::Bundle,
    checkpoint::{Checkpoint, CheckpointError},
    classifier::Classifier,
    embedding::EmbeddingSettings,
};
use slm_pool::{Priority, with_priority};

use super::{Common, Model, ModelError, ModelOptions, Task, Work, available_threads};
use crate::{
    adapters::Adapters,
    embed::{BATCH_TEXTS, BATCH_TOKENS, Embedder, Readout, TextReader},
    runtime::{EncoderConfig, Encoding, Runtime},
};

/// What reads texts.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) task: Task,
    pub(crate) embedder: Embedder,
    pub(crate) texts: TextReader,
    /// Head of a model that scores or labels; `None` for one that makes vectors.
    pub(crate) head: Option<Classifier>,
}

/// What states become, as the checkpoint says for the task.
pub(super) enum Ending {
    Vectors(EmbeddingSettings),
    Scores(Classifier),
}

impl Ending {
    /// That of `task`; `None` for a model that generates.
    pub(super) fn read(checkpoint: &Checkpoint, task: Task) -> Result<Option<Self>, CheckpointError> {
        Ok(match task {
            Task::Generate => None,
            Task::Embed => Some(Self::Vectors(checkpoint.embedding()?)),
            Task::Rerank => Some(Self::Scores(checkpoint.reranker()?)),
            Task::Classify => Some(Self::Scores(checkpoint.classifier()?)),
        })
    }
}

/// Opens the bundle's session and starts the thread.
pub(super) fn open(
    options: &ModelOptions,
    runtime: &Runtime,
    bundle: Bundle,
    ending: Ending,
) -> Result<(Model, JoinHandle<()>), ModelError> {
    let model = &bundle.info.architecture;
    let (readout, settings, head) = match ending {
        Ending::Vectors(settings) => (Readout::from(&settings), settings, None),
        Ending::Scores(head) => (Readout::from(&head), EmbeddingSettings::default(), Some(head)),
    };
    let trained = settings.tokens_max.unwrap_or(usize::MAX).min(model.context_length);
    let context_length = options.context_length.unwrap_or(trained);
    let threads = options.threads.unwrap_or_else(available_threads);
    let tokens = BATCH_TOKENS.max(context_length);
    let config = EncoderConfig { context_length, tokens, texts: BATCH_TEXTS, threads };
    let adapters =
        Adapters::new(options.adapter_slots, options.sequences_max + options.queue_max + 1, options.adapter_host_bytes);
    // The session starts the compute threads.
    let opened =
        with_priority(Priority::Compute, || options.provider.open_encoder(runtime, &bundle, config, adapters.table()));
    let Encoding { session, loader, nodes } =
        opened?.ok_or_else(|| ModelError::EncodesOnCpuOnly(options.provider.to_string()))?;
    let (pages, states) = session.bytes();
    let texts = TextReader::new(&bundle, &settings.prompt, &options.name, context_length)?;
    let requests_max = options.sequences_max + options.queue_max;
    let (embedder, thread) = Embedder::start(session, readout, requests_max).map_err(ModelError::Thread)?;
    let common = Common { bundle, adapters, loader, nodes, buffers: [pages as u64, 0, states as u64] };
    let encoder = Encoder { task: options.task, embedder, texts, head };
    Ok((Model::new(options, common, Work::Encode(Box::new(encoder)))?, thread))
}

//! A model that turns texts into vectors: its thread, and its reader of texts.

use std::thread::JoinHandle;

use slm_convert::bundle::Bundle;
use slm_pool::{Priority, with_priority};

use super::{Common, Model, ModelError, ModelOptions, Work, available_threads};
use crate::{
    adapters::Adapters,
    embed::{BATCH_TEXTS, BATCH_TOKENS, Embedder, TextReader},
    runtime::{EncoderConfig, Encoding, Runtime},
};

/// What turns texts into vectors.
#[derive(Debug)]
pub(crate) struct Embedding {
    pub(crate) embedder: Embedder,
    pub(crate) texts: TextReader,
}

/// Opens the bundle's session and starts the thread.
pub(super) fn open(
    options: &ModelOptions,
    runtime: &Runtime,
    bundle: Bundle,
) -> Result<(Model, JoinHandle<()>), ModelError> {
    let model = &bundle.info.architecture;
    let settings = bundle.info.embedding.clone().unwrap_or_default();
    let trained = settings.tokens_max.unwrap_or(usize::MAX).min(model.context_length);
    let context_length = options.context_length.unwrap_or(trained);
    let threads = options.threads.unwrap_or_else(available_threads);
    let tokens = BATCH_TOKENS.max(context_length);
    let config = EncoderConfig { context_length, tokens, texts: BATCH_TEXTS, threads };
    let adapters = Adapters::new(options.adapter_slots, options.sequences_max + options.queue_max + 1);
    // The session starts the compute threads.
    let opened =
        with_priority(Priority::Compute, || options.provider.open_encoder(runtime, &bundle, config, adapters.table()));
    let Encoding { session, loader, nodes } =
        opened?.ok_or_else(|| ModelError::EmbedsOnCpuOnly(options.provider.to_string()))?;
    let (pages, states) = session.bytes();
    let texts = TextReader::new(&bundle, &settings, &options.name, context_length)?;
    let requests_max = options.sequences_max + options.queue_max;
    let (embedder, thread) = Embedder::start(session, settings, requests_max).map_err(ModelError::Thread)?;
    let common = Common { bundle, adapters, loader, nodes, buffers: [pages as u64, 0, states as u64] };
    Ok((Model::new(options, common, Work::Embed(Box::new(Embedding { embedder, texts })))?, thread))
}

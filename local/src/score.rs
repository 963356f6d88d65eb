//! The perplexity of a model on a text, without a swarm.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use slm_convert::{
    bundle::{Bundle, BundleError, PrecisionChoice},
    checkpoint::{Checkpoint, CheckpointError},
    peft::{Adapter, AdapterError},
};
use slm_worker::{
    adapters::{AdapterInfo, AdapterLease, Adapters, PrepareError, PublishError},
    model::available_threads,
    runtime::{
        AdapterLoader, AdapterRoom, LibraryError, Opened, Provider, Runtime, SessionConfig, SessionError, TOKENS_MAX,
    },
    score::perplexity,
};
use thiserror::Error;

/// A model, a text and how to compute.
#[derive(Clone, Debug)]
pub struct ScoreOptions {
    /// A GGUF file, or a Hugging Face folder.
    pub model: PathBuf,
    /// An adapter folder as PEFT writes it.
    pub adapter: Option<PathBuf>,
    /// The text, in UTF-8.
    pub text: PathBuf,
    /// Tokens of the text that are scored, from its beginning; at least 2.
    pub tokens: usize,
    /// Execution provider.
    pub provider: Provider,
    /// Precision of the weights in memory.
    pub precision: PrecisionChoice,
    /// Threads that compute; unset: all that this process may use.
    pub threads: Option<usize>,
    /// The folder of converted models.
    pub converted: PathBuf,
}

/// The result.
#[derive(Debug)]
pub struct Score {
    /// exp of the mean negative log-likelihood of every token but the first.
    pub perplexity: f64,
    /// The converted model.
    pub bundle: Bundle,
}

/// Progress of a scoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreProgress {
    /// Layers converted, of all; only for a model that is not in the cache yet.
    Converting(usize, usize),
    /// Tokens scored, of all.
    Scoring(usize, usize),
}

/// The reason why a text has no score.
#[derive(Debug, Error)]
pub enum ScoreError {
    /// ONNX Runtime cannot be loaded.
    #[error(transparent)]
    Runtime(#[from] LibraryError),
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] CheckpointError),
    /// The model cannot be converted.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The text cannot be used, or the model has no tokenizer for it.
    #[error("{0}")]
    Text(String),
    /// The adapter cannot be read.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The adapter cannot be brought into the form of the provider.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The adapter found no slot.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Scores the text. Blocks and computes for as long as that takes.
///
/// # Errors
/// Files that cannot be used, or a text with fewer tokens than asked for.
pub fn score(options: &ScoreOptions, progress: &mut dyn FnMut(ScoreProgress)) -> Result<Score, ScoreError> {
    let (runtime, provider) = (Runtime::load()?, options.provider);
    let checkpoint = Checkpoint::open(&options.model)?;
    let converting = &mut |done, total| progress(ScoreProgress::Converting(done, total));
    let bundle =
        Bundle::open_or_build(&checkpoint, provider.flavour(options.precision), &options.converted, converting)?;
    let tokens = window(options, &bundle)?;
    let adapters = Adapters::new(1, 1, 0);
    let config = SessionConfig {
        context_length: tokens.len(),
        pages: provider.pages_for(1, tokens.len()),
        sequences: 1,
        logits: tokens.len().min(TOKENS_MAX),
        threads: options.threads.unwrap_or_else(available_threads),
    };
    let adapter = options.adapter.as_ref().map(|path| open_adapter(path, &options.model, &bundle)).transpose()?;
    let room = AdapterRoom { slots: 1, rank_max: adapter.as_ref().map_or(1, |adapter| adapter.rank_max) };
    let Opened { mut backend, loader, .. } = provider.open(&runtime, &bundle, config, room, adapters.table())?;
    // Held until the end: with its lease an adapter leaves its slot.
    let lease = adapter.map(|adapter| publish(&adapter, &loader, &adapters)).transpose()?;
    let slot = lease.as_ref().map(|lease| lease.slot());
    let scored = &mut |done| progress(ScoreProgress::Scoring(done, tokens.len()));
    scored(0);
    let perplexity = perplexity(&mut *backend, &tokens, slot, scored);
    drop(lease);
    Ok(Score { perplexity: perplexity?, bundle })
}

/// The first tokens of the text.
fn window(options: &ScoreOptions, bundle: &Bundle) -> Result<Vec<u32>, ScoreError> {
    let file = options.text.display();
    let text = std::fs::read(&options.text).map_err(|error| ScoreError::Text(format!("{file}: {error}")))?;
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ScoreError::Text(format!("{file}: not UTF-8 at byte {at}"))
    })?;
    let none = || ScoreError::Text(format!("{}: the model has no tokenizer", options.model.display()));
    let tokenizer = bundle.tokenizer()?.ok_or_else(none)?;
    let encoding = tokenizer.encode(text, true).map_err(|error| ScoreError::Text(format!("tokenising: {error}")))?;
    let ids = encoding.get_ids();
    let first = ids.get(..options.tokens).ok_or_else(|| {
        let (there, asked) = (ids.len(), options.tokens);
        ScoreError::Text(format!("{file}: has {there} tokens, but --tokens asks for {asked}"))
    })?;
    Ok(first.to_vec())
}

fn open_adapter(path: &Path, model: &Path, bundle: &Bundle) -> Result<Adapter, ScoreError> {
    let embedding = |name: &str| Checkpoint::open(model).ok()?.tensor(name).ok();
    Ok(Adapter::open_on(path, &bundle.info.architecture, &embedding)?)
}

fn publish(adapter: &Adapter, loader: &AdapterLoader, adapters: &Adapters) -> Result<Arc<AdapterLease>, ScoreError> {
    let begun = Instant::now();
    let loaded = loader.load(adapter, 1.0)?;
    let info = AdapterInfo::new("scored", &loaded, 1.0, begun.elapsed());
    Ok(adapters.publish(info, loaded)?)
}

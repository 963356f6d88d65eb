//! The model that a worker serves: its files, its engine, its adapters.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use slm_artifacts::Progress;
use slm_convert::{
    bundle::{Bundle, BundleError, PrecisionChoice},
    checkpoint::{Checkpoint, CheckpointError, Tensor},
    generation::EndToken,
    graph::Precision,
    pack::{Key, PackError, PackedAdapter, pack},
    peft::{Adapter, AdapterChat, AdapterError},
};

use crate::{
    adapters::{AdapterInfo, AdapterLease, Adapters, Load, PublishError},
    admit::Limits,
    engine::{Engine, EngineConfig},
    runtime::{DecoderSession, LibraryError, Runtime, SessionConfig, SessionError, TOKENS_MAX, page_bytes},
    service::token_bytes_max,
    text::{Prompter, TokenBytes},
    thread_priority::with_compute_priority,
};

/// What to serve and how.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// Name of the SlmModel.
    pub name: String,
    /// Checkpoint: a GGUF file, or a folder.
    pub path: PathBuf,
    /// When set, the checkpoint must have this digest.
    pub digest: Option<String>,
    /// Of the linear layers.
    pub precision: PrecisionChoice,
    /// Prompt and answer together; unset: what the model was made for, at most [`CONTEXT_LENGTH_DEFAULT_MAX`].
    pub context_length: Option<usize>,
    /// Sequences that run at once.
    pub sequences_max: usize,
    /// Requests that may wait besides.
    pub queue_max: usize,
    /// Answers that may be complete and unread besides; unset: [`UNREAD_PER_SEQUENCE`] for each sequence.
    pub unread_max: Option<usize>,
    /// Bytes of keys and values at most; unset: room for all those sequences, but no more than half of the memory that this
    /// process may use.
    pub kv_cache_bytes: Option<u64>,
    /// Whether prompts are kept for later requests.
    pub prefix_cache: bool,
    /// Whether tokens are tried before their turn.
    pub prompt_lookup: bool,
    /// Threads of a step; unset: all cores this process may use.
    pub threads: Option<usize>,
    /// Adapters that may be loaded.
    pub adapter_slots: usize,
    /// Largest rank of an adapter.
    pub adapter_rank_max: usize,
    /// Folder of converted models.
    pub cache: PathBuf,
}

/// Context of a model whose manifest says nothing: cache memory grows with it.
pub const CONTEXT_LENGTH_DEFAULT_MAX: usize = 4096;

/// Answers that may be complete and not read, for each sequence that may run at once.
pub const UNREAD_PER_SEQUENCE: usize = 4;

/// Tokens of drafts that a step checks at most, of all its sequences together: each takes a row of logits.
const DRAFTED_MAX: usize = 24;

/// Upper bound of the duration of a step while any sequence decodes: prefill is chunked to stay below it.
const STEP_MAX: Duration = Duration::from_millis(100);

/// The model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It cannot be converted.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Another artifact than was asked for.
    #[error("{path}: digest is {found}, but the manifest says {expected}; fix source.digest or the file")]
    Digest {
        /// The artifact.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        expected: String,
    },
    /// ONNX Runtime is not to be had.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// ONNX Runtime does not take the graph.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Not a single request would have room.
    #[error(
        "spec.runtime.kvCache.bytes is {bytes}, but the keys and values of one sequence of {context_length} tokens take {needed}; \
         raise it or lower spec.runtime.contextLength"
    )]
    KvCache {
        /// There are.
        bytes: u64,
        /// Longest sequence.
        context_length: usize,
        /// What that takes.
        needed: u64,
    },
    /// The engine thread cannot be started.
    #[error("starting the engine thread: {0}")]
    Thread(std::io::Error),
}

/// An adapter was not loaded; what was loaded before still is.
#[derive(Debug, thiserror::Error)]
pub enum LoadAdapterError {
    /// Its files cannot be used with this base.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// It cannot be laid out.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Another artifact than was asked for.
    #[error("{path}: digest is {found}, but {expected} was asked for; fix source.digest or the files")]
    Digest {
        /// The folder.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        expected: String,
    },
    /// Larger than the model allows.
    #[error("{path}: rank {rank} is above spec.adapters.maxRank of the model, which is {most}")]
    Rank {
        /// The folder.
        path: PathBuf,
        /// Its largest rank.
        rank: usize,
        /// Allowed.
        most: usize,
    },
    /// A base and an adapter cannot have the same name.
    #[error("`{0}` is the base model's own name")]
    NameTaken(String),
    /// The scale is of no use.
    #[error("scale is {0}; it must be a number above 0")]
    Scale(f32),
    /// It is of no use any more, or there is no room.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// An adapter that is at hand, as it was asked for.
#[derive(Debug, Clone)]
pub struct WantedAdapter {
    /// What requests will call it.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// Digest of the artifact as it travelled; empty for files in place.
    pub source_digest: String,
    /// When set, its contents must have this digest.
    pub digest: Option<String>,
    /// Multiplies its own scaling.
    pub scale: f32,
    /// When it was asked for.
    pub since: Instant,
}

/// Progress of opening a model, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Its artifact is being fetched.
    Fetching(Progress),
    /// Layers converted, of how many.
    Converting(usize, usize),
    /// The graph is being loaded.
    Loading,
}

/// A served model.
#[derive(Debug)]
pub struct Model {
    /// Name of the SlmModel.
    pub name: String,
    /// The files it is made from.
    pub bundle: Bundle,
    /// Its loaded adapters.
    pub adapters: Adapters,
    /// The thread that steps.
    pub engine: Engine,
    /// Text to tokens.
    pub prompter: Prompter,
    /// Tokens to text; `None` without a tokenizer.
    pub token_bytes: Option<Arc<TokenBytes>>,
    /// Bytes that a token stands for at most; `None` without a tokenizer.
    pub token_bytes_max: Option<usize>,
    /// Bounds on requests.
    pub limits: Limits,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of the cache, when full.
    pub cache_bytes: u64,
    /// Bytes of the memory for logits.
    pub logits_bytes: u64,
    adapter_rank_max: usize,
    /// Where its checkpoint was when it was opened.
    checkpoint: PathBuf,
}

impl Model {
    /// Opens, converts if need be, loads and starts a model.
    pub fn open(
        options: &ModelOptions,
        progress: &mut dyn FnMut(Opening),
    ) -> Result<(Self, JoinHandle<()>), ModelError> {
        let runtime = Runtime::load()?;
        let checkpoint = Checkpoint::open(&options.path)?;
        check_digest(checkpoint.digest(), options)?;
        for note in checkpoint.notes() {
            tracing::warn!("{note}");
        }
        let bundle = Bundle::open_or_build(&checkpoint, options.precision, &options.cache, &mut |done, total| {
            progress(Opening::Converting(done, total));
        })?;
        progress(Opening::Loading);
        let context_length =
            options.context_length.unwrap_or(bundle.info.context_length.min(CONTEXT_LENGTH_DEFAULT_MAX));
        let pages = pages(options, &bundle, context_length)?;
        let threads = options.threads.unwrap_or_else(available_threads);
        let drafted = if options.prompt_lookup { DRAFTED_MAX } else { 0 };
        let logits = (options.sequences_max + drafted).min(TOKENS_MAX);
        let config = SessionConfig { context_length, pages, logits, threads };
        // Every request in the house may hold another replaced version.
        let adapters = Adapters::new(options.adapter_slots, options.sequences_max + options.queue_max + 1);
        // It starts the threads of the steps.
        let session = with_compute_priority(|| DecoderSession::open(&runtime, &bundle, config, adapters.table()))?;
        let cache_bytes = (page_bytes(&bundle) * pages) as u64;
        let logits_bytes = session.logits_bytes() as u64;
        let config = EngineConfig {
            sequences_max: options.sequences_max,
            queue_max: options.queue_max,
            unread_max: options.unread_max.unwrap_or(UNREAD_PER_SEQUENCE * options.sequences_max),
            prefix_pages: if options.prefix_cache { pages } else { 0 },
            prompt_lookup: options.prompt_lookup,
            step_max: STEP_MAX,
        };
        let (engine, thread) = Engine::start(session, config).map_err(ModelError::Thread)?;
        let weight_bytes = bundle.weight_bytes()?;
        let prompter = Prompter::new(&bundle)?;
        let ends = &bundle.info.generation.eos_token_ids;
        let token_bytes = prompter.tokenizer().map(|tokenizer| Arc::new(TokenBytes::new(tokenizer, ends)));
        let token_bytes_max = token_bytes
            .as_deref()
            .zip(prompter.tokenizer())
            .map(|(bytes, tokenizer)| token_bytes_max(bytes, tokenizer));
        tell_ends(&options.name, &bundle.info.generation.ends);
        let limits = Limits { model: options.name.clone(), context_length, defaults: bundle.info.generation.clone() };
        let model = Self {
            name: options.name.clone(),
            bundle,
            adapters,
            engine,
            prompter,
            token_bytes,
            token_bytes_max,
            limits,
            weight_bytes,
            cache_bytes,
            logits_bytes,
            adapter_rank_max: options.adapter_rank_max,
            checkpoint: options.path.clone(),
        };
        Ok((model, thread))
    }

    /// Of the linear layers.
    pub fn precision(&self) -> Precision {
        self.bundle.info.precision
    }

    /// Makes the adapter in the folder `path` what its name means. What was kept of it in `derived` is used as it is, else
    /// it is read, checked and packed.
    pub fn load_adapter(
        &self,
        wanted: &WantedAdapter,
        load: Load,
        path: &Path,
        derived: Option<&Path>,
    ) -> Result<Arc<AdapterLease>, LoadAdapterError> {
        let WantedAdapter { name, source, source_digest, scale, since, .. } = wanted;
        if *name == self.name {
            return Err(LoadAdapterError::NameTaken(name.clone()));
        }
        if !(scale.is_finite() && *scale > 0.0) {
            return Err(LoadAdapterError::Scale(*scale));
        }
        let (config, precision) = (&self.bundle.info.config, self.precision());
        let kept =
            derived.and_then(|dir| PackedAdapter::kept(dir, &self.key(source_digest, *scale), config, precision));
        // One that was kept under another reading of the same files is made again.
        let kept = kept.filter(|kept| wanted.digest.as_ref().is_none_or(|digest| *digest == kept.digest));
        let packed = match kept {
            Some(packed) => {
                self.check(wanted, path, &packed.digest, packed.rank_max)?;
                packed
            }
            None => {
                let adapter = Adapter::open_on(path, config, &|name| self.embedding(name))?;
                self.check(wanted, path, &adapter.digest, adapter.rank_max)?;
                pack(&adapter, config, precision, *scale)?
            }
        };
        let chat = AdapterChat::read(path, self.bundle.info.chat_template.as_ref(), self.prompter.tokenizer());
        for note in &chat.notes {
            tracing::warn!(adapter = name, "{note}");
        }
        if let Some(template) = &chat.template {
            tracing::info!(adapter = name, file = template.file(), "requests to it go through its own chat template");
        }
        let (source, source_digest) = (source.clone(), source_digest.clone());
        let info =
            AdapterInfo { source, source_digest, chat, ..AdapterInfo::new(name, &packed, *scale, since.elapsed()) };
        Ok(self.adapters.publish_loaded(load, info, packed)?)
    }

    /// Embedding or head as the checkpoint has them. Rarely asked for, so the file is opened anew.
    fn embedding(&self, name: &str) -> Option<Tensor> {
        let checkpoint = Checkpoint::open(&self.checkpoint).ok()?;
        checkpoint.tensor(name).ok()
    }

    fn check(
        &self,
        wanted: &WantedAdapter,
        path: &Path,
        digest: &str,
        rank_max: usize,
    ) -> Result<(), LoadAdapterError> {
        if let Some(expected) = wanted.digest.as_ref().filter(|expected| *expected != digest) {
            let (found, expected) = (digest.to_owned(), expected.clone());
            return Err(LoadAdapterError::Digest { path: path.into(), found, expected });
        }
        if rank_max > self.adapter_rank_max {
            let (rank, most) = (rank_max, self.adapter_rank_max);
            return Err(LoadAdapterError::Rank { path: path.into(), rank, most });
        }
        Ok(())
    }

    /// Keeps in `derived` what was packed for this lease, for whoever loads the same the next time. Where that cannot be
    /// done, it will be packed again.
    pub fn keep_packed(&self, lease: &AdapterLease, derived: &Path) {
        let Some(packed) = self.adapters.table().get(lease.slot()).filter(|packed| !packed.is_mapped()) else { return };
        if let Err(error) = packed.keep(derived, &self.key(&lease.info.source_digest, lease.info.scale)) {
            tracing::debug!(adapter = lease.info.name, %error, "the packed adapter is not kept");
        }
    }

    fn key(&self, artifact: &str, scale: f32) -> Key {
        Key::new(artifact, &self.bundle.info.config, self.precision(), scale)
    }
}

/// Pages of keys and values that `options` ask for.
fn pages(options: &ModelOptions, bundle: &Bundle, context_length: usize) -> Result<usize, ModelError> {
    let page = page_bytes(bundle);
    let (one, all) =
        (SessionConfig::pages_for(1, context_length), SessionConfig::pages_for(options.sequences_max, context_length));
    match options.kv_cache_bytes {
        Some(bytes) => {
            let pages = usize::try_from(bytes).unwrap_or(usize::MAX) / page;
            let needed = (one * page) as u64;
            if pages < one { Err(ModelError::KvCache { bytes, context_length, needed }) } else { Ok(pages) }
        }
        None => Ok(all.min((memory_limit() / 2) as usize / page).max(one)),
    }
}

/// Says which tokens end an answer, and why.
fn tell_ends(model: &str, ends: &[EndToken]) {
    let ends: Vec<String> = ends.iter().map(|end| format!("{} {:?} ({})", end.id, end.token, end.named_by)).collect();
    if ends.is_empty() {
        tracing::warn!(model, "no token ends an answer: give max_tokens or stop");
    } else {
        tracing::info!(model, ends = ends.join(", "), "tokens that end an answer");
    }
}

/// Bytes that this process may use: of its container, or of the machine.
fn memory_limit() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let container = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    container.min(system.total_memory())
}

fn check_digest(found: &str, options: &ModelOptions) -> Result<(), ModelError> {
    match &options.digest {
        Some(expected) if expected != found => {
            Err(ModelError::Digest { path: options.path.clone(), found: found.into(), expected: expected.clone() })
        }
        _ => Ok(()),
    }
}

/// Cores this process may use.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

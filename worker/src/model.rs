//! The served model: its files, its adapters, and what it does.

mod encoder;
mod generator;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Instant,
};

use slm_artifacts::Progress;
use slm_convert::{
    bundle::{Bundle, BundleError, FlavourChoice, PrecisionChoice},
    checkpoint::{Checkpoint, CheckpointError, Tensor},
    graph::{Activations, Form, Precision},
    pack::{Key, PackedAdapter},
    peft::{Adapter, AdapterChat, AdapterError, HEAD_FILE, HeadChanges, digest_of_changes, has_head, is_head_alone},
};
use slm_head::{Encoder as Trained, Head, HeadError};

pub(crate) use self::encoder::Encoder;
use self::encoder::Ending;
pub use self::generator::Generator;
use crate::{
    adapters::{AdapterInfo, AdapterVersion, Adapters, HostAdapter, Load, LoadedAdapter, PrepareError, PublishError},
    embed::Readout,
    engine::EngineStats,
    permits::Permits,
    runtime::{
        AdapterLoader, Assignment, BankError, LibraryError, Provider, ProviderError, Runtime, SelfCheckError,
        SessionError,
    },
};

/// Configuration of the model.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// Name of the SlmModel.
    pub name: String,
    /// Path of the checkpoint: a GGUF file, or a folder.
    pub path: PathBuf,
    /// Digest that the checkpoint must have.
    pub digest: Option<String>,
    /// Execution provider.
    pub provider: Provider,
    /// What it does.
    pub task: Task,
    /// Precision of the linear layers.
    pub precision: PrecisionChoice,
    /// Context length, prompt and answer together; unset: the trained one, at most [`CONTEXT_LENGTH_DEFAULT_MAX`].
    pub context_length: Option<usize>,
    /// Bound on running sequences.
    pub sequences_max: usize,
    /// Bound on waiting requests.
    pub queue_max: usize,
    /// Bound on complete answers that were not read; unset: [`UNREAD_PER_SEQUENCE`] for each sequence.
    pub unread_max: Option<usize>,
    /// Bound on the KV cache in bytes; unset: room for all sequences, but at most half of the process's memory limit.
    pub kv_cache_bytes: Option<u64>,
    /// Whether to cache prefixes for later requests.
    pub prefix_cache: bool,
    /// Whether to draft tokens by prompt lookup (speculative decoding).
    pub prompt_lookup: bool,
    /// Threads of a step; unset: all cores available to this process.
    pub threads: Option<usize>,
    /// Slots: bound on adapters that running requests use at a time.
    pub adapter_slots: usize,
    /// Bound on the bytes of adapters that are kept in the memory of the host besides.
    pub adapter_host_bytes: u64,
    /// Bound on the rank of an adapter.
    pub adapter_rank_max: usize,
    /// Folder of converted models.
    pub cache: PathBuf,
}

/// What a worker does with its model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Task {
    /// Continue text.
    #[default]
    Generate,
    /// Turn texts into vectors.
    Embed,
    /// Score documents for a query.
    Rerank,
    /// Give texts labels.
    Classify,
}

/// As manifests spell it.
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generate => "Generate",
            Self::Embed => "Embed",
            Self::Rerank => "Rerank",
            Self::Classify => "Classify",
        })
    }
}

/// Default bound on the context length, because the KV cache grows with it.
pub const CONTEXT_LENGTH_DEFAULT_MAX: usize = 4096;

/// Default bound on unread complete answers for each running sequence.
pub const UNREAD_PER_SEQUENCE: usize = 4;

/// The model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint cannot be converted.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The checkpoint has another digest.
    #[error("{path}: digest is {found}, but the manifest says {expected}; fix source.digest or the file")]
    Digest {
        /// Path of the checkpoint.
        path: PathBuf,
        /// Actual digest.
        found: String,
        /// Expected digest.
        expected: String,
    },
    /// ONNX Runtime is not available.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// ONNX Runtime rejects the graph.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The execution provider cannot be used.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The device computes wrongly.
    #[error(transparent)]
    SelfCheck(#[from] SelfCheckError),
    /// The KV cache is too small for one sequence.
    #[error(
        "spec.runtime.kvCache.bytes is {bytes}, but the keys and values of one sequence of {context_length} tokens take {needed}; \
         raise it or lower spec.runtime.contextLength"
    )]
    KvCache {
        /// Configured bytes.
        bytes: u64,
        /// Context length in tokens.
        context_length: usize,
        /// Bytes needed for one sequence.
        needed: u64,
    },
    /// Encoders run on the CPU.
    #[error(
        "spec.task Embed, Rerank and Classify run on the CPU only, not on the execution provider {0}: set \
         spec.runtime.accelerator to cpu"
    )]
    EncodesOnCpuOnly(String),
    /// The thread of the engine or the embedder cannot be started.
    #[error("starting the thread that computes: {0}")]
    Thread(std::io::Error),
}

/// An adapter was not loaded; the former version stays loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadAdapterError {
    /// The adapter does not fit the base.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The adapter cannot be brought into the form or the memory of the backend.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The adapter has another digest.
    #[error("{path}: digest is {found}, but {expected} was asked for; fix source.digest or the files")]
    Digest {
        /// Path of the folder.
        path: PathBuf,
        /// Actual digest.
        found: String,
        /// Expected digest.
        expected: String,
    },
    /// The rank exceeds the model's bound.
    #[error("{path}: rank {rank} is above spec.adapters.maxRank of the model, which is {most}")]
    Rank {
        /// Path of the folder.
        path: PathBuf,
        /// Largest rank of the adapter.
        rank: usize,
        /// Bound on the rank.
        most: usize,
    },
    /// The adapter has the base model's name.
    #[error("`{0}` is the name of the base model; load the adapter under another name")]
    NameTaken(String),
    /// The scale is invalid.
    #[error("scale is {0}; it must be a number above 0")]
    Scale(f32),
    /// The head of a route cannot be read.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The head of a route is for other vectors than those of the model.
    #[error("{}: {problem}", path.display())]
    OtherHead {
        /// Path of the head's file.
        path: PathBuf,
        /// What does not fit, and what to do.
        problem: String,
    },
    /// The load was superseded, or no slot is free.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A fetched adapter, with the parameters of its load request.
#[derive(Debug, Clone)]
pub struct WantedAdapter {
    /// Name that requests will use.
    pub name: String,
    /// Source URI.
    pub source: String,
    /// Verified digest of the artifact; empty for files that are used in place.
    pub source_digest: String,
    /// Digest that the contents must have.
    pub digest: Option<String>,
    /// Multiplier of the adapter's own scaling.
    pub scale: f32,
    /// Whether it never leaves its slot for another adapter.
    pub pinned: bool,
    /// Time of the load request.
    pub since: Instant,
}

/// Progress of opening a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Fetching the artifact.
    Fetching(Progress),
    /// Converted layers and their total.
    Converting(usize, usize),
    /// Loading the graph.
    Loading,
}

/// A served model.
#[derive(Debug)]
pub struct Model {
    /// Name of the SlmModel.
    pub name: String,
    /// Converted model.
    pub bundle: Bundle,
    /// Loaded adapters.
    pub adapters: Adapters,
    loader: AdapterLoader,
    /// Execution provider.
    pub provider: Provider,
    /// Number of the graph's nodes that each execution provider computes.
    pub nodes: Assignment,
    /// What it does.
    pub(crate) work: Work,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of keys and values when all pages are in use.
    pub cache_bytes: u64,
    /// Bytes of the states of sequences; zero for a model without states.
    pub state_bytes: u64,
    /// Bytes of the buffer of results: logits, or states of tokens.
    pub logits_bytes: u64,
    adapter_rank_max: usize,
    /// Path of the checkpoint when it was opened.
    checkpoint: PathBuf,
}

/// What a model does.
#[derive(Debug)]
pub(crate) enum Work {
    /// Continues text.
    Generate(Box<Generator>),
    /// Turns texts into vectors, scores or labels.
    Encode(Box<Encoder>),
}

/// Parts of a model that do not depend on its task.
struct Common {
    bundle: Bundle,
    adapters: Adapters,
    loader: AdapterLoader,
    nodes: Assignment,
    /// Bytes of keys and values, of states of sequences, and of results.
    buffers: [u64; 3],
}

impl Model {
    /// Opens a model: converts it if necessary, loads the session and starts the thread that computes.
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
        let ending = Ending::read(&checkpoint, options.task)?;
        let mut flavour = options.provider.flavour(options.precision);
        if ending.is_some() {
            flavour = FlavourChoice { form: Form::States, activations: Activations::F32, ..flavour };
        }
        let bundle = Bundle::open_or_build(&checkpoint, flavour, &options.cache, &mut |done, total| {
            progress(Opening::Converting(done, total));
        })?;
        progress(Opening::Loading);
        match ending {
            None => generator::open(options, &runtime, bundle),
            Some(ending) => encoder::open(options, &runtime, bundle, ending),
        }
    }

    fn new(options: &ModelOptions, common: Common, work: Work) -> Result<Self, ModelError> {
        let Common { bundle, adapters, loader, nodes, buffers } = common;
        let [cache_bytes, state_bytes, logits_bytes] = buffers;
        Ok(Self {
            name: options.name.clone(),
            weight_bytes: bundle.weight_bytes()?,
            bundle,
            adapters,
            loader,
            provider: options.provider,
            nodes,
            work,
            cache_bytes,
            state_bytes,
            logits_bytes,
            adapter_rank_max: options.adapter_rank_max,
            checkpoint: options.path.clone(),
        })
    }

    /// What it does.
    pub fn task(&self) -> Task {
        match &self.work {
            Work::Generate(_) => Task::Generate,
            Work::Encode(encoder) => encoder.task,
        }
    }

    /// Floats of a vector; 0 for a model that makes none.
    pub fn vector_size(&self) -> usize {
        match &self.work {
            Work::Encode(encoder) if encoder.task == Task::Embed => encoder.embedder.width(),
            Work::Encode(_) | Work::Generate(_) => 0,
        }
    }

    /// Permits of its requests.
    pub fn permits(&self) -> &Permits {
        match &self.work {
            Work::Generate(generator) => generator.engine.permits(),
            Work::Encode(encoder) => encoder.embedder.permits(),
        }
    }

    /// Current load.
    pub fn stats(&self) -> EngineStats {
        match &self.work {
            Work::Generate(generator) => generator.engine.stats(),
            Work::Encode(encoder) => encoder.embedder.stats(),
        }
    }

    /// Its tokenizer, if it has one.
    pub(crate) fn tokenizer(&self) -> Option<&tokenizers::Tokenizer> {
        match &self.work {
            Work::Generate(generator) => generator.prompter.tokenizer(),
            Work::Encode(encoder) => encoder.texts.tokenizer(),
        }
    }

    /// Precision of the linear layers.
    pub fn precision(&self) -> Precision {
        self.bundle.info.flavour.precision
    }

    /// Loads the adapter in the folder `path` and publishes it under its name: in a slot if one is free, else in the memory of
    /// the host, as far as there is room. A packed file in `derived` is mapped; else the adapter is read, checked and packed.
    pub fn load_adapter(
        &self,
        wanted: &WantedAdapter,
        load: Load,
        path: &Path,
        derived: Option<&Path>,
    ) -> Result<(Arc<AdapterVersion>, HostAdapter), LoadAdapterError> {
        let WantedAdapter { name, source, source_digest, scale, pinned, since, .. } = wanted;
        if *name == self.name {
            return Err(LoadAdapterError::NameTaken(name.clone()));
        }
        if !(scale.is_finite() && *scale > 0.0) {
            return Err(LoadAdapterError::Scale(*scale));
        }
        let adapter = self.host_adapter(wanted, path, derived)?;
        let readout = self.readout(path, *scale)?;
        let head = self.head(path)?;
        let chat = AdapterChat::read(path, self.bundle.info.chat_template.as_ref(), self.tokenizer());
        for note in &chat.notes {
            tracing::warn!(adapter = name, "{note}");
        }
        if let Some(template) = &chat.template {
            tracing::info!(adapter = name, file = template.file(), "requests to it go through its own chat template");
        }
        let info = AdapterInfo {
            digest: adapter.digest().to_owned(),
            source: source.clone(),
            source_digest: source_digest.clone(),
            pinned: *pinned,
            rank_max: adapter.rank_max(),
            target_modules: adapter.target_modules().to_vec(),
            chat,
            readout,
            head,
            ..AdapterInfo::named(name, *scale, since.elapsed())
        };
        let placed = match self.adapters.reserve(name) {
            None => None,
            Some(reservation) => self.place(&adapter)?.map(|placed| (reservation, placed)),
        };
        let only_placed = placed.is_some() && !self.loader.copies();
        let version = self.adapters.publish_loaded(load, info, adapter.bytes(), placed)?;
        if !only_placed {
            self.adapters.keep_in_host_memory(&version, adapter.clone());
        }
        Ok((version, adapter))
    }

    /// The adapter in the folder `path` in the memory of the host.
    pub(crate) fn host_adapter(
        &self,
        wanted: &WantedAdapter,
        path: &Path,
        derived: Option<&Path>,
    ) -> Result<HostAdapter, LoadAdapterError> {
        let WantedAdapter { name, source_digest, scale, .. } = wanted;
        let (config, precision) = (&self.bundle.info.architecture, self.precision());
        let derived = derived.filter(|_| self.loader.takes_packed());
        let kept =
            derived.and_then(|dir| PackedAdapter::kept(dir, &self.key(source_digest, *scale), config, precision));
        // A file that was packed from other contents is packed again.
        let kept = kept.filter(|kept| wanted.digest.as_ref().is_none_or(|digest| *digest == kept.digest));
        if let Some(packed) = kept {
            self.check(wanted, path, &packed.digest, packed.rank_max)?;
            return Ok(packed.into());
        }
        let adapter = Adapter::open_on(path, config, &|name| self.embedding(name))?;
        self.check(wanted, path, &adapter.digest, adapter.rank_max)?;
        for note in &adapter.notes {
            tracing::warn!(adapter = name, "{note}");
        }
        Ok(self.loader.prepare(&adapter, *scale)?)
    }

    /// Puts `adapter` into the memory of the backend; `None` if there is no room. Blocks while a device copies.
    pub(crate) fn place(&self, adapter: &HostAdapter) -> Result<Option<LoadedAdapter>, PrepareError> {
        match self.loader.place(adapter) {
            Ok(placed) => Ok(Some(placed)),
            Err(BankError::Full { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether placing an adapter copies it to a device.
    pub(crate) fn copies_adapters(&self) -> bool {
        self.loader.copies()
    }

    /// What states become with the adapter in the folder `path`, if it changes the head.
    fn readout(&self, path: &Path, scale: f32) -> Result<Option<Arc<Readout>>, AdapterError> {
        let Work::Encode(encoder) = &self.work else { return Ok(None) };
        if is_head_alone(path) {
            return Ok(None);
        }
        let head = encoder.head.as_ref();
        let changes = HeadChanges::open(path, &self.bundle.info.architecture, head)?;
        let changed = head.filter(|_| !changes.is_empty()).map(|head| head.changed(&changes, scale));
        Ok(changed.map(|head| Readout::from(&head).into()))
    }

    /// The head of a route in the folder `path`, if there is one and it is for the vectors of this model with this adapter.
    fn head(&self, path: &Path) -> Result<Option<Arc<Head>>, LoadAdapterError> {
        if !has_head(path) {
            return Ok(None);
        }
        let other = |problem| LoadAdapterError::OtherHead { path: path.join(HEAD_FILE), problem };
        if self.task() != Task::Embed {
            let (name, task) = (&self.name, self.task());
            return Err(other(format!(
                "a head reads vectors, and {name} has the task {task}; name a model with `task: Embed` as modelRef"
            )));
        }
        let head = Head::open(path)?;
        let Trained { name, model, adapter, width } = head.encoder();
        let again = "train it again with `slm route train`, or serve the encoder that it was trained on";
        if *width != self.vector_size() {
            let own = self.vector_size();
            return Err(other(format!(
                "the head is for vectors of {width} numbers, {} makes {own}; {again}",
                self.name
            )));
        }
        if *model != self.bundle.info.digest {
            let (name, own) = (&self.name, &self.bundle.info.digest);
            return Err(other(format!("the head was trained on vectors of {model}; {name} is {own}: {again}")));
        }
        if *adapter != digest_of_changes(path)? {
            return Err(other(format!(
                "the head was trained on vectors of `{name}` with other adapter files; remove it and train it again with `slm route train`"
            )));
        }
        Ok(Some(Arc::new(head)))
    }

    /// Embedding or head of the checkpoint. Rarely needed, so the file is reopened.
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

    /// Writes the packed adapter to `derived`, for the next load. If that fails, it is packed again next time.
    pub fn keep_packed(&self, version: &AdapterVersion, adapter: &HostAdapter, derived: &Path) {
        let Some(packed) = adapter.newly_packed() else { return };
        if let Err(error) = packed.keep(derived, &self.key(&version.info.source_digest, version.info.scale)) {
            tracing::debug!(adapter = version.info.name, %error, "the packed adapter is not kept");
        }
    }

    fn key(&self, artifact: &str, scale: f32) -> Key {
        Key::new(artifact, &self.bundle.info.architecture, self.precision(), scale)
    }
}

/// Bound on a sequence in tokens.
fn context_length(options: &ModelOptions, bundle: &Bundle) -> usize {
    options.context_length.unwrap_or(bundle.info.architecture.context_length.min(CONTEXT_LENGTH_DEFAULT_MAX))
}

/// Memory limit of the container, or the machine's memory.
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

/// Cores available to this process.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

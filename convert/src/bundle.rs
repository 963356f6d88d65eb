//! A converted model on disk: everything a worker needs, under a name that says what it was made from.
//!
//! A bundle is a folder `DIGEST-PRECISION-vVERSION` of the cache with the graph, its weights, `tokenizer.json` and
//! `bundle.json`. It is built in a folder beside it and renamed when complete, under a lock, so that a bundle that
//! exists is whole and two processes that want the same one build it once.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    chat::{ChatError, ChatTemplate},
    checkpoint::{Checkpoint, CheckpointError},
    config::ModelConfig,
    generation::GenerationDefaults,
    graph::{self, Flavour, GRAPH_FILE, GraphError, Precision, WEIGHTS_FILE},
};

/// Grows whenever the same checkpoint would give another bundle: another graph, or others of the defaults beside it.
pub const CONVERTER_VERSION: u32 = 5;
/// Rotary tables stop here: 2 x 16 MiB at head_dim 128, and no CPU serves longer contexts in useful time.
const CONTEXT_LENGTH_MAX: usize = 32 * 1024;

const BUNDLE_FILE: &str = "bundle.json";
const TOKENIZER_FILE: &str = "tokenizer.json";

/// Where converted models, and what set-up fetches, are kept: `$SLM_CACHE_DIR`, else `slm-swarm` in `$XDG_CACHE_HOME`
/// or `~/.cache`.
pub fn cache_dir() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SLM_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("slm-swarm")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache").join("slm-swarm")))
}

/// What `bundle.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleInfo {
    /// `sha256:…` of the checkpoint.
    pub digest: String,
    /// Of the linear layers.
    pub precision: Precision,
    /// Longest sequence that the rotary tables cover.
    pub context_length: usize,
    /// The model's shape.
    pub config: ModelConfig,
    /// Sampling defaults and end-of-sequence ids.
    pub generation: GenerationDefaults,
    /// Chat template, when the model has one.
    pub chat_template: Option<ChatTemplate>,
}

/// A complete bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Its folder.
    pub dir: PathBuf,
    /// What is in it.
    pub info: BundleInfo,
}

/// A bundle could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its chat template cannot be parsed.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The graph cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Its tokenizer cannot be written.
    #[error("writing the tokenizer: {0}")]
    Tokenizer(String),
    /// The cache folder cannot be used.
    #[error("{path}: {source}; free space or choose another cache folder")]
    Cache {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder that should be a bundle is not.
    #[error("{path}: {why}; delete the folder and it will be made again")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Asked of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrecisionChoice {
    /// Int4 when the checkpoint's own weights have 4 bits, Int8 when they have 5 to 8, else F32.
    Auto,
    /// As said.
    Exactly(Precision),
}

fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(dir)?.sync_all()
}

impl PrecisionChoice {
    /// What it comes to for `checkpoint`.
    pub fn resolve(self, checkpoint: &Checkpoint) -> Precision {
        match self {
            Self::Exactly(precision) => precision,
            Self::Auto => match checkpoint.native_bits("model.layers.0.self_attn.q_proj.weight") {
                Some(..=4) => Precision::Int4,
                Some(_) => Precision::Int8,
                None => Precision::F32,
            },
        }
    }
}

impl Bundle {
    /// Opens the bundle folder `dir`.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        let damaged = |why: String| BundleError::Damaged { path: dir.into(), why };
        let text = fs::read(dir.join(BUNDLE_FILE)).map_err(|e| damaged(format!("{BUNDLE_FILE}: {e}")))?;
        let info = serde_json::from_slice(&text).map_err(|e| damaged(format!("{BUNDLE_FILE}: {e}")))?;
        Ok(Self { dir: dir.into(), info })
    }

    /// The bundle of `checkpoint` in `cache`, built now if it is not there. `progress` is told of finished and total
    /// layers, and is not called when there is nothing to do.
    pub fn open_or_build(
        checkpoint: &Checkpoint,
        precision: PrecisionChoice,
        cache: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, BundleError> {
        let precision = precision.resolve(checkpoint);
        let digest = checkpoint.digest().trim_start_matches("sha256:");
        let name = format!("{digest}-{precision}-v{CONVERTER_VERSION}").to_lowercase();
        let dir = cache.join(&name);
        let cache_error = |path: &Path| {
            let path = path.to_owned();
            move |source| BundleError::Cache { path, source }
        };
        if dir.join(BUNDLE_FILE).exists() {
            return Self::open(&dir);
        }
        fs::create_dir_all(cache).map_err(cache_error(cache))?;
        let lock_path = cache.join(format!("{name}.lock"));
        let lock = File::create(&lock_path).map_err(cache_error(&lock_path))?;
        lock.lock().map_err(cache_error(&lock_path))?;
        // Another process may have built it while this one waited.
        if !dir.join(BUNDLE_FILE).exists() {
            let staging = cache.join(format!("{name}.partial"));
            if staging.exists() {
                fs::remove_dir_all(&staging).map_err(cache_error(&staging))?;
            }
            fs::create_dir_all(&staging).map_err(cache_error(&staging))?;
            Self::build(checkpoint, precision, &staging, progress).inspect_err(|_| {
                // What cannot be finished only takes space; the error that matters is the one being returned.
                let _ = fs::remove_dir_all(&staging);
            })?;
            // A name that survives a power failure must not stand before contents that did not.
            sync(&staging).map_err(cache_error(&staging))?;
            fs::rename(&staging, &dir).map_err(cache_error(&dir))?;
        }
        Self::open(&dir)
    }

    /// Builds straight into the folder `dir`, for `slm convert`.
    pub fn build(
        checkpoint: &Checkpoint,
        precision: Precision,
        dir: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), BundleError> {
        let context_length = checkpoint.config().context_length.min(CONTEXT_LENGTH_MAX);
        if let Some(tokenizer) = checkpoint.tokenizer()? {
            tokenizer
                .save(dir.join(TOKENIZER_FILE), false)
                .map_err(|error| BundleError::Tokenizer(error.to_string()))?;
        }
        graph::build(checkpoint, Flavour { precision, context_length }, dir, progress).map_err(
            |error| match error {
                GraphError::Write(source) => BundleError::Cache { path: dir.into(), source },
                other => other.into(),
            },
        )?;
        let info = BundleInfo {
            digest: checkpoint.digest().into(),
            precision,
            context_length,
            config: checkpoint.config().clone(),
            generation: checkpoint.generation().clone(),
            chat_template: checkpoint.chat_template()?,
        };
        let path = dir.join(BUNDLE_FILE);
        let json = serde_json::to_vec_pretty(&info).map_err(io::Error::other);
        json.and_then(|json| fs::write(&path, json)).map_err(|source| BundleError::Cache { path, source })
    }

    /// The graph to load.
    pub fn graph(&self) -> PathBuf {
        self.dir.join(GRAPH_FILE)
    }

    /// Bytes of its weights.
    ///
    /// # Errors
    /// Their file is gone.
    pub fn weight_bytes(&self) -> Result<u64, BundleError> {
        match self.dir.join(WEIGHTS_FILE).metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(BundleError::Damaged { path: self.dir.clone(), why: format!("{WEIGHTS_FILE}: {error}") }),
        }
    }

    /// The tokenizer, when the model came with one.
    pub fn tokenizer(&self) -> Result<Option<tokenizers::Tokenizer>, BundleError> {
        let path = self.dir.join(TOKENIZER_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |why| BundleError::Damaged { path: self.dir.clone(), why };
        tokenizers::Tokenizer::from_file(&path).map(Some).map_err(|e| damaged(format!("{TOKENIZER_FILE}: {e}")))
    }
}

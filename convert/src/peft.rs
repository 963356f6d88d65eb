//! PEFT LoRA adapters.
//!
//! An adapter either loads completely and then has exactly the effect that it has in PEFT, or is refused with the name
//! of the obstacle. No part is ignored silently.

mod chat;
mod config;
mod error;
mod head;
mod lookalike;
mod matrix;
mod synthetic;
mod targets;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use chat::AdapterChat;
pub use error::AdapterError;
pub use head::HeadChanges;
pub use matrix::Matrix;

use crate::architecture::{Architecture, Place};
use crate::checkpoint::Tensor;
use crate::{digest, listing, mapped};
use config::LoraConfig;
use weights::Weights;

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Name of the file that says what the head of a route is. What it holds is read elsewhere.
pub const HEAD_FILE: &str = "head.json";
/// Name of the file with the matrices of the head of a route.
pub const HEAD_WEIGHTS_FILE: &str = "head.safetensors";
/// Real configurations have a few kilobytes, or some hundred with a pattern for each module.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Bound on a hashed file: rank 256 on every layer of a model of 8 billion weights has 3 GB.
const BYTES_MAX: u64 = 16 << 30;

/// Embedding and head of the base by Hugging Face name, to compare an adapter's copies with.
pub type Embeddings<'a> = dyn Fn(&str) -> Option<Tensor> + 'a;

/// An adapter that fits its base.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Identity of the adapter: `sha256:…` of configuration, weights, and chat template and head, if any.
    pub digest: String,
    /// Largest rank of its pairs.
    pub rank_max: usize,
    /// Short names of the adapted linear layers, in the order of [`Architecture::linear_names`].
    pub target_modules: Vec<String>,
    /// One pair for each adapted linear layer.
    pub pairs: BTreeMap<Place, LoraPair>,
    /// Warnings about parts that have no effect, each with the file.
    pub notes: Vec<String>,
}

/// `y += scaling · B (A x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// `alpha / rank`, or `alpha / sqrt(rank)` for a rank-stabilised adapter.
    pub scaling: f32,
    /// `[rank, inputs]`, row-major.
    pub a: Matrix,
    /// `[outputs, rank]`, row-major.
    pub b: Matrix,
}

impl Adapter {
    /// Opens a folder with `adapter_config.json` and `adapter_model.safetensors` for the base of that shape. A folder with the head of a
    /// route needs neither: without them the base stays as it is.
    ///
    /// # Errors
    /// Names the field or tensor that cannot be applied exactly. A copy of the base's embedding or head is such a
    /// tensor; [`Self::open_on`] can tell a mere copy.
    pub fn open(dir: &Path, base: &Architecture) -> Result<Self, AdapterError> {
        Self::open_on(dir, base, &|_| None)
    }

    /// The same for a base whose embedding and head are available. They are read only if the adapter has copies.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(dir: &Path, base: &Architecture, embeddings: &Embeddings<'_>) -> Result<Self, AdapterError> {
        if is_head_alone(dir) {
            let digest = digest(dir)?;
            return Ok(Self {
                digest,
                rank_max: 0,
                target_modules: Vec::new(),
                pairs: BTreeMap::new(),
                notes: Vec::new(),
            });
        }
        let config_path = existing(dir, CONFIG_FILE)?;
        let weights_path = existing(dir, WEIGHTS_FILE)?;
        let config_bytes = mapped::read(&config_path, CONFIG_BYTES_MAX)
            .map_err(|source| AdapterError::Io { path: config_path.clone(), source })?;
        let config = LoraConfig::parse(&config_path, &config_bytes, base)?;
        let targets = targets::resolve(&config, base)?;
        let weights = Weights::open(&weights_path)?;
        let (pairs, note) = weights.pairs(&targets, base, embeddings)?;

        Ok(Self {
            digest: identity(dir, Some((&config_bytes, weights.bytes())))?,
            rank_max: pairs.values().map(|pair| pair.rank).max().unwrap_or(0),
            target_modules: target_modules(base, pairs.keys().copied()),
            pairs,
            notes: note.into_iter().collect(),
        })
    }
}

/// Short names of the linear layers at `places`, in the order of [`Architecture::linear_names`].
pub(crate) fn target_modules(base: &Architecture, places: impl Iterator<Item = Place>) -> Vec<String> {
    let adapted: BTreeSet<&str> =
        places.filter_map(|place| base.linear(place)).map(crate::architecture::Linear::short_name).collect();
    base.linear_names().into_iter().filter(|name| adapted.contains(name)).map(str::to_owned).collect()
}

/// Whether the folder `dir` has the head of a route.
pub fn has_head(dir: &Path) -> bool {
    dir.join(HEAD_FILE).is_file()
}

/// Whether the folder `dir` has the head of a route and nothing that changes its base.
pub fn is_head_alone(dir: &Path) -> bool {
    has_head(dir) && !dir.join(CONFIG_FILE).is_file() && !dir.join(WEIGHTS_FILE).is_file()
}

/// The digest of the adapter in `dir`, as [`Adapter::open`] computes it, without validating the files.
///
/// # Errors
/// One of the files cannot be read.
pub fn digest(dir: &Path) -> Result<String, AdapterError> {
    if is_head_alone(dir) {
        return identity(dir, None);
    }
    let (config, weights) = (read(dir, CONFIG_FILE)?, read(dir, WEIGHTS_FILE)?);
    identity(dir, Some((&config, &weights)))
}

/// The digest of what changes the base, without the head of a route beside it. `None` if nothing does.
///
/// # Errors
/// One of the files cannot be read.
pub fn digest_of_changes(dir: &Path) -> Result<Option<String>, AdapterError> {
    if is_head_alone(dir) {
        return Ok(None);
    }
    let (config, weights) = (read(dir, CONFIG_FILE)?, read(dir, WEIGHTS_FILE)?);
    Ok(Some(digest::of_files([(CONFIG_FILE, config.as_slice()), (WEIGHTS_FILE, weights.as_slice())])))
}

/// Read, not mapped: a watched folder may be written meanwhile.
fn read(dir: &Path, name: &'static str) -> Result<Vec<u8>, AdapterError> {
    let path = existing(dir, name)?;
    mapped::read(&path, BYTES_MAX).map_err(|source| AdapterError::Io { path, source })
}

/// Hashes configuration and weights, and the chat template and the head if there are any.
fn identity(dir: &Path, files: Option<(&[u8], &[u8])>) -> Result<String, AdapterError> {
    let template = chat::source(dir);
    let template = template.as_ref().map(|template| ("chat_template", template.as_bytes()));
    let files = files.map(|(config, weights)| [(CONFIG_FILE, config), (WEIGHTS_FILE, weights)]);
    let head = match has_head(dir) {
        true => Some([read(dir, HEAD_FILE)?, read(dir, HEAD_WEIGHTS_FILE)?]),
        false => None,
    };
    let names = [HEAD_FILE, HEAD_WEIGHTS_FILE];
    let head = head.iter().flat_map(|files| names.into_iter().zip(files.iter().map(Vec::as_slice)));
    Ok(digest::of_files(files.into_iter().flatten().chain(template).chain(head)))
}

fn existing(dir: &Path, name: &'static str) -> Result<std::path::PathBuf, AdapterError> {
    let path = dir.join(name);
    if let Some(problem) = listing::obstacle(&path) {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, problem);
        return Err(AdapterError::Io { path, source });
    }
    if path.is_file() {
        return Ok(path);
    }
    Err(AdapterError::NotAnAdapter { path: dir.to_owned(), missing: name, found: lookalike::adapter(dir) })
}

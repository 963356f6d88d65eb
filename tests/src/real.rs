//! The small real models that tests use.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use slm_convert::{
    bundle::{Bundle, PrecisionChoice, cache_dir},
    checkpoint::Checkpoint,
    graph::Precision,
};
use slm_worker::{
    adapters::AdapterTable,
    runtime::{AdapterRoom, Backend, Provider, Runtime, SessionConfig, TOKENS_MAX},
};

/// A real model that `make setup` or `make test` fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// SmolLM2-135M-Instruct, Q4_1.
    SmolLm2,
    /// Gemma 3 270M, Q4_K_M: Q4_K, Q5_0, Q6_K and Q8_0.
    Gemma3,
}

impl Model {
    fn file(self) -> &'static str {
        match self {
            Self::SmolLm2 => "SmolLM2-135M-Instruct.Q4_1.gguf",
            Self::Gemma3 => "gemma-3-270m-q4_k_m.gguf",
        }
    }

    /// The model's file, where `scripts/setup` puts it; `$SLM_TEST_GGUF` for another SmolLM2.
    pub fn gguf(self) -> Result<PathBuf> {
        let named = env::var_os("SLM_TEST_GGUF").filter(|path| self == Self::SmolLm2 && !path.is_empty());
        let path = match named.map(PathBuf::from) {
            Some(path) => path,
            None => cache_dir().context("no cache folder")?.join("models").join(self.file()),
        };
        ensure!(path.exists(), "{}: not there; run `scripts/setup model gemma`", path.display());
        Ok(path)
    }

    /// Its bundle in the common cache.
    pub fn bundle(self, precision: Precision) -> Result<Bundle> {
        let checkpoint = Checkpoint::open(&self.gguf()?)?;
        let cache = cache_dir().context("no cache folder")?.join("converted");
        Ok(Bundle::open_or_build(&checkpoint, PrecisionChoice::Exactly(precision), &cache, &mut |_, _| ())?)
    }

    /// The reference in the repository.
    pub fn reference(self) -> Result<Reference> {
        let name = match self {
            Self::SmolLm2 => "smollm2-135m.json",
            Self::Gemma3 => "gemma-3-270m.json",
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

/// The file of SmolLM2.
pub fn gguf() -> Result<PathBuf> {
    Model::SmolLm2.gguf()
}

/// A bare backend of a bundle, without adapters.
pub fn backend(bundle: &Bundle, sequences_max: usize, context_length: usize) -> Result<Box<dyn Backend>> {
    let pages = Provider::Cpu.pages_for(sequences_max, context_length);
    let sequences = sequences_max;
    let config = SessionConfig { context_length, pages, sequences, logits: TOKENS_MAX, threads: 2 };
    let room = AdapterRoom { slots: 1, rank_max: 1 };
    Ok(Provider::Cpu.open(&Runtime::load()?, bundle, config, room, AdapterTable::new(1).into())?.backend)
}

/// The reference implementation's output for a model.
#[derive(Debug, Deserialize)]
pub struct Reference {
    /// Perplexity over the first 1,024 tokens of the GPL-3 text.
    pub ppl_gpl3_1024: f64,
    /// Prompts and greedy answers.
    pub prompts: Vec<ReferencePrompt>,
}

/// One prompt of the reference.
#[derive(Debug, Deserialize)]
pub struct ReferencePrompt {
    /// As given, templates rendered.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Likeliest next tokens.
    pub top5_ids: Vec<u32>,
    /// Their logits.
    pub top5_logits: Vec<f32>,
    /// Greedy answer, the end-of-sequence token included.
    pub greedy_ids: Vec<u32>,
}

//! The small real model that tests use: SmolLM2-135M-Instruct, which `make setup` fetches.

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
    runtime::{DecoderSession, Runtime, SessionConfig, TOKENS_MAX},
};

/// The model's file: `$SLM_TEST_GGUF`, else where `make setup` puts it.
pub fn gguf() -> Result<PathBuf> {
    let named = env::var_os("SLM_TEST_GGUF").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = match named {
        Some(path) => path,
        None => cache_dir().context("no cache folder")?.join("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
    };
    ensure!(path.exists(), "{}: not there; run `make setup`, or set SLM_TEST_GGUF", path.display());
    Ok(path)
}

/// Its bundle in the common cache.
pub fn bundle(precision: Precision) -> Result<Bundle> {
    let checkpoint = Checkpoint::open(&gguf()?)?;
    let cache = cache_dir().context("no cache folder")?.join("converted");
    Ok(Bundle::open_or_build(&checkpoint, PrecisionChoice::Exactly(precision), &cache, &mut |_, _| ())?)
}

/// A bare session of it, without adapters.
pub fn session(bundle: &Bundle, sequences_max: usize, context_length: usize) -> Result<DecoderSession> {
    let pages = SessionConfig::pages_for(sequences_max, context_length);
    let config = SessionConfig { context_length, pages, logits: TOKENS_MAX, threads: 2 };
    Ok(DecoderSession::open(&Runtime::load()?, bundle, config, AdapterTable::new(1).into())?)
}

/// The reference implementation's output for it.
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

impl Reference {
    /// The one in the repository.
    pub fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/smollm2-135m.json");
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

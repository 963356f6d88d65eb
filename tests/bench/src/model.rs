//! The model of a run, in the file that each side reads.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use slm_convert::{
    bundle::{Bundle, PrecisionChoice, cache_dir},
    checkpoint::Checkpoint,
    graph::Precision,
};
use slm_tests::real;

use crate::random_model::{self, Blocks};

/// Which model is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    /// SmolLM2-135M-Instruct: Q4_1 for us, and Q4_0, its fastest form, for llama-server.
    #[value(name = "smollm2-135m")]
    SmolLm2,
    /// Gemma 3 270M, Q4_K_M, the same file for both.
    #[value(name = "gemma-3-270m")]
    Gemma3,
    /// A Llama of 1.1 billion random weights, Q4_0, the same file for both.
    #[value(name = "llama-1.1b")]
    Llama,
    /// The same in Q4_K.
    #[value(name = "llama-1.1b-q4k")]
    LlamaQ4K,
}

/// Its files.
pub(crate) struct Model {
    pub(crate) size: Size,
    gguf: PathBuf,
    pub(crate) bundle: Bundle,
}

impl Model {
    /// Makes what is not there yet.
    pub(crate) fn open(size: Size) -> Result<Self> {
        let cache = cache_dir().context("no cache folder")?;
        let random = |blocks| random_model::file(&cache.join("models"), &real::gguf()?, blocks);
        let gguf = match size {
            Size::SmolLm2 => real::gguf()?,
            Size::Gemma3 => real::Model::Gemma3.gguf()?,
            Size::Llama => random(Blocks::Q4_0)?,
            Size::LlamaQ4K => random(Blocks::Q4K)?,
        };
        let checkpoint = Checkpoint::open(&gguf)?;
        let choice = PrecisionChoice::Exactly(Precision::Int4);
        let bundle = Bundle::open_or_build(&checkpoint, choice, &cache.join("converted"), &mut |_, _| ())?;
        Ok(Self { size, gguf, bundle })
    }

    /// The file for llama-server, unless another one is named.
    pub(crate) fn for_llama(&self, named: Option<PathBuf>) -> Result<PathBuf> {
        match (named, self.size) {
            (Some(named), _) => Ok(named),
            // Where `scripts/llama-server` puts it.
            (None, Size::SmolLm2) => {
                Ok(cache_dir().context("no cache folder")?.join("models/SmolLM2-135M-Instruct.Q4_0.gguf"))
            }
            (None, _) => Ok(self.gguf.clone()),
        }
    }

    /// `general.architecture` of its files.
    pub(crate) fn gguf_architecture(&self) -> &'static str {
        if self.size == Size::Gemma3 { "gemma3" } else { "llama" }
    }

    /// Whether its answers mean something, so that answers of two servers can be compared.
    pub(crate) fn is_trained(&self) -> bool {
        matches!(self.size, Size::SmolLm2 | Size::Gemma3)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.gguf
    }
}

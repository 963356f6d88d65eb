//! Checkpoint in, decoder graph out.
//!
//! The graph is one step of a decoder over `batch` sequences of `sequence` new tokens each:
//!
//! | input | type | meaning |
//! |---|---|---|
//! | `input_ids` | i64 `[batch, sequence]` | the new tokens |
//! | `rows` | i32 `[batch]` | adapter slot of each sequence, -1 for none |
//! | `seqlens_k` | i32 `[batch]` | tokens in the cache after this step, less one |
//! | `total_sequence_length` | i32 `[]` | the largest of those, plus one |
//! | `logits_indices` | i64 `[wanted]` | which of the `batch * sequence` tokens get logits |
//! | `past_key.N`, `past_value.N` | f32 `[batch, kv_heads, capacity, head_dim]` | the cache |
//!
//! and gives `logits` f32 `[wanted, vocab]` and `present_key.N`, `present_value.N`, to be bound to the buffers that
//! came in as `past`. With more than one new token a sequence, `batch` must be 1 (GroupQueryAttention's rule).
//!
//! Not here: which numbers the weights hold (`quantize`), what a family is called (`families`), how an adapter is laid
//! out (`pack`).

mod builder;
mod decoder;
mod fused;
mod plain;

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    config::ModelConfig,
    peft::Module,
};

/// File names inside a bundle.
pub(crate) const GRAPH_FILE: &str = "model.onnx";
pub(crate) const WEIGHTS_FILE: &str = "model.onnx.data";

/// Domain of the project's own operators.
pub const OPERATOR_DOMAIN: &str = "slm";
/// `LoraAdd(y, x, rows) -> y`: adds to each row of `y` what its adapter makes of `x`. Attribute `group`.
pub const LORA_ADD: &str = "LoraAdd";
/// `Embedding(ids, weights) -> x`: rows of a packed matrix. Attributes `format`, `inputs`, `outputs`.
pub const EMBEDDING: &str = "Embedding";
/// `NormLinear(x, weights, rows, gain) -> y`: the root-mean-square norm of `x` times a packed matrix, and what each
/// row's adapter makes of it. Attributes as `Embedding`, `epsilon`, and `group` where adapters may be.
pub const NORM_LINEAR: &str = "NormLinear";
/// `LinearAdd(x, weights, rows, residual) -> y`: the residual plus `x`, or with `gated` 1 `silu(gate) * value` of its
/// two halves, times a packed matrix, and what each row's adapter makes of it. Attributes as `NormLinear`.
pub const LINEAR_ADD: &str = "LinearAdd";

/// What the weights of the linear layers are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// 32-bit floats; the reference.
    F32,
    /// 4-bit integers, the embedding and the head of 8 bits, but see `quantize`.
    Int4,
    /// 8-bit integers.
    Int8,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::Int4 => "Int4",
            Self::Int8 => "Int8",
        })
    }
}

/// Projections that are one matrix in the graph, and one place for adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Query, key and value side by side.
    Qkv,
    /// Attention output.
    O,
    /// Gate and up side by side.
    GateUp,
    /// Feed-forward output.
    Down,
}

impl Group {
    /// All groups, in the order of their indices within a layer.
    pub const ALL: [Self; 4] = [Self::Qkv, Self::O, Self::GateUp, Self::Down];

    /// The modules in it, in column order.
    pub fn modules(self) -> &'static [Module] {
        match self {
            Self::Qkv => &[Module::Q, Module::K, Module::V],
            Self::O => &[Module::O],
            Self::GateUp => &[Module::Gate, Module::Up],
            Self::Down => &[Module::Down],
        }
    }

    /// What its values in `layer` are called.
    fn name(self, layer: usize) -> String {
        format!("layers.{layer}.{self:?}").to_lowercase()
    }

    /// Index of this group of `layer` among all of a model's groups: the attribute `group` of an operator.
    pub fn index(self, layer: usize) -> usize {
        layer * Self::ALL.len() + self as usize
    }

    /// Input columns of the group's matrix.
    pub fn inputs(self, config: &ModelConfig) -> usize {
        self.modules()[0].dimensions(config).0
    }

    /// Output columns of the group's matrix.
    pub fn outputs(self, config: &ModelConfig) -> usize {
        self.modules().iter().map(|module| module.dimensions(config).1).sum()
    }
}

/// Building failed; nothing usable was written.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A tensor could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Quantised weights could not be taken over.
    #[error(transparent)]
    Weights(#[from] slm_kernels::SourceError),
    /// The graph or its weights could not be written.
    #[error("writing the graph: {0}")]
    Write(#[from] io::Error),
    /// The model has a shape that the attention operator cannot take.
    #[error("head_dim {0}: ONNX Runtime's GroupQueryAttention needs a multiple of 16 to rotate")]
    HeadDim(usize),
}

/// How to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flavour {
    /// Of the linear layers.
    pub precision: Precision,
    /// Positions for which rotary tables are made; longer sequences cannot run.
    pub context_length: usize,
}

/// Builds the graph of `checkpoint` into `dir`. `progress` is told of finished and total layers.
pub fn build(
    checkpoint: &Checkpoint,
    flavour: Flavour,
    dir: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), GraphError> {
    let config = checkpoint.config();
    if !config.head_dim.is_multiple_of(16) {
        return Err(GraphError::HeadDim(config.head_dim));
    }
    let weights = crate::weights::WeightFile::create(dir, WEIGHTS_FILE)?;
    let mut builder = builder::Builder::new(checkpoint, flavour, weights);
    decoder::decoder(&mut builder, progress)?;
    let model = builder.finish()?;
    std::fs::write(dir.join(GRAPH_FILE), prost::Message::encode_to_vec(&model))?;
    Ok(())
}

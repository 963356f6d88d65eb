//! Checkpoint in, decoder graph out.
//!
//! The graph is one step of a decoder over the new tokens of any number of sequences, which stand flat, one sequence
//! after the other:
//!
//! | input | type | meaning |
//! |---|---|---|
//! | `input_ids` | i64 `[tokens]` | the new tokens |
//! | `logits_indices` | i64 `[wanted]` | which of them get logits |
//!
//! and gives `logits` f32 `[wanted, vocab]`. What belongs to the sequences is not in the graph: which token is whose and
//! at which position, the pages of keys and values, the adapters. The project's own operators find it beside the graph,
//! where whoever runs a step puts it first.
//!
//! Not here: which numbers the weights hold (`quantize`), what a family is called (`families`), how an adapter is laid
//! out (`pack`).

mod builder;
mod common;
mod decoder;
mod fused;
mod plain;

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use slm_kernels::attention::HEAD_DIM_MAX;

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
/// `LoraAdd(y, x) -> y`: adds to each row of `y` what its adapter makes of `x`. Attribute `group`.
pub const LORA_ADD: &str = "LoraAdd";
/// `Embedding(ids, weights) -> x`: rows of a packed matrix. Attributes `format`, `inputs`, `outputs`.
pub const EMBEDDING: &str = "Embedding";
/// `NormLinear(x, weights, gain) -> y`: the root-mean-square norm of `x` times a packed matrix, and what each row's
/// adapter makes of it. Attributes as `Embedding`, `epsilon`, and `group` where adapters may be.
pub const NORM_LINEAR: &str = "NormLinear";
/// `LinearAdd(x, weights, residual) -> y`: the residual plus `x`, or with `gated` 1 `silu(gate) * value` of its two
/// halves, times a packed matrix, and what each row's adapter makes of it. Attributes as `NormLinear`.
pub const LINEAR_ADD: &str = "LinearAdd";
/// `Attention(qkv, cos, sin) -> y`: rotates queries and keys, appends keys and values to the pages of the rows'
/// sequences, and attends to what is there. Attributes `layer`, `heads`, `kv_heads`, `head_dim`, `scale`, and `window`
/// where a token does not see all before it.
pub const ATTENTION: &str = "Attention";

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
    #[error("heads of {0}: attention takes multiples of 16 up to {HEAD_DIM_MAX}")]
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
    if !config.head_dim.is_multiple_of(16) || config.head_dim > HEAD_DIM_MAX {
        return Err(GraphError::HeadDim(config.head_dim));
    }
    let weights = crate::weights::WeightFile::create(dir, WEIGHTS_FILE)?;
    let mut builder = builder::Builder::new(checkpoint, flavour, weights);
    decoder::decoder(&mut builder, progress)?;
    let model = builder.finish()?;
    std::fs::write(dir.join(GRAPH_FILE), prost::Message::encode_to_vec(&model))?;
    Ok(())
}

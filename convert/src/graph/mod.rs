//! Decoder graphs: from a checkpoint to an ONNX graph.
//!
//! The graph is one forward pass over the new tokens of any number of sequences (continuous batching), concatenated
//! without padding:
//!
//! | input | type | meaning |
//! |---|---|---|
//! | `input_ids` | i64 `[tokens]` | the new tokens |
//! | `logits_indices` | i64 `[wanted]` | tokens that need logits |
//!
//! It gives `logits` f32 `[wanted, vocab]`. State of the sequences is not in the graph: the token-to-sequence mapping,
//! positions, pages of the KV cache (paged attention) and adapters. The project's own operators read it from the
//! forward pass that the worker prepares.
//!
//! Elsewhere: quantisation (`quantize`), families (`families`), layout of adapters (`pack`).

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

/// File names within a bundle.
pub(crate) const GRAPH_FILE: &str = "model.onnx";
pub(crate) const WEIGHTS_FILE: &str = "model.onnx.data";

/// Domain of the project's own operators.
pub const OPERATOR_DOMAIN: &str = "slm";
/// `LoraAdd(y, x) -> y`: adds the adapter's output for `x` to each row of `y`. Attribute `group`.
pub const LORA_ADD: &str = "LoraAdd";
/// `Embedding(ids, weights) -> x`: rows of a packed matrix. Attributes `format`, `inputs`, `outputs`.
pub const EMBEDDING: &str = "Embedding";
/// `NormLinear(x, weights, gain) -> y`: RMS norm of `x` times a packed matrix, plus each row's adapter. Attributes as
/// `Embedding`, `epsilon`, and `group` if adapters may apply.
pub const NORM_LINEAR: &str = "NormLinear";
/// `LinearAdd(x, weights, residual) -> y`: the residual plus `x` (with `gated` 1: `silu(gate) * value` of its two
/// halves) times a packed matrix, plus each row's adapter. Attributes as `NormLinear`.
pub const LINEAR_ADD: &str = "LinearAdd";
/// `Attention(qkv, cos, sin) -> y`: applies rotary embedding to queries and keys, appends keys and values to the pages
/// of their sequences, and attends to them. Attributes `layer`, `heads`, `kv_heads`, `head_dim`, `scale`, and `window`
/// for a sliding window.
pub const ATTENTION: &str = "Attention";

/// Storage type of the linear layers' weights.
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

/// A fused projection: projections that are one matrix in the graph, with one place for adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FusedProjection {
    /// Query, key and value side by side.
    Qkv,
    /// Attention output.
    O,
    /// Gate and up side by side.
    GateUp,
    /// Feed-forward output.
    Down,
}

impl FusedProjection {
    /// All fused projections, in the order of their indices within a layer.
    pub const ALL: [Self; 4] = [Self::Qkv, Self::O, Self::GateUp, Self::Down];

    /// Its modules, in column order.
    pub fn modules(self) -> &'static [Module] {
        match self {
            Self::Qkv => &[Module::Q, Module::K, Module::V],
            Self::O => &[Module::O],
            Self::GateUp => &[Module::Gate, Module::Up],
            Self::Down => &[Module::Down],
        }
    }

    /// Prefix of its values' names in `layer`.
    fn name(self, layer: usize) -> String {
        format!("layers.{layer}.{self:?}").to_lowercase()
    }

    /// Index of this projection of `layer` among all of the model: the attribute `group` of an operator.
    pub fn index(self, layer: usize) -> usize {
        layer * Self::ALL.len() + self as usize
    }

    /// Input columns of the matrix.
    pub fn inputs(self, config: &ModelConfig) -> usize {
        self.modules()[0].dimensions(config).0
    }

    /// Output columns of the matrix.
    pub fn outputs(self, config: &ModelConfig) -> usize {
        self.modules().iter().map(|module| module.dimensions(config).1).sum()
    }
}

/// A build that failed; its output is not usable.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A tensor could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Quantised weights could not be repacked.
    #[error(transparent)]
    Weights(#[from] slm_kernels::SourceError),
    /// The graph or its weights could not be written.
    #[error("writing the graph: {0}")]
    Write(#[from] io::Error),
    /// The attention operator does not support the model's head size.
    #[error("heads of {0}: attention takes multiples of 16 up to {HEAD_DIM_MAX}")]
    HeadDim(usize),
}

/// Settings of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flavour {
    /// Precision of the linear layers.
    pub precision: Precision,
    /// Positions of the rotary tables; longer sequences cannot run.
    pub context_length: usize,
}

/// Builds the graph of `checkpoint` into `dir`. `progress` is called with finished and total layers.
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

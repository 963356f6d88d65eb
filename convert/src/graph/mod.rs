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
//! forward pass that the worker prepares. That is the form [`Form::Paged`]; [`rows`] has the inputs and outputs of the
//! others. In the form [`Form::States`], the texts of a pass are whole, `states` f32 `[tokens, hidden]` of all tokens are the
//! result, and `positions` i64 `[tokens]` the rows of position embeddings, in models that have these: those of a second token type are
//! behind those of the first.
//!
//! Elsewhere: quantisation (`quantize`), families (`families`), layout of adapters (`pack`).

mod builder;
mod common;
mod decoder;
mod delta;
mod encoder;
mod experts;
mod flavour;
mod formats;
mod fused;
mod gqa;
mod heads;
mod masks;
mod plain;
pub mod rows;
mod standard;
mod states;

use std::{io, path::Path};

pub use flavour::{Activations, Flavour, Form};
pub use formats::part_formats;

use serde::{Deserialize, Serialize};
use slm_kernels::attention::HEAD_DIM_MAX;

use crate::{
    architecture::{Architecture, Attention, KeyValues, Layer, Projection},
    checkpoint::{Checkpoint, CheckpointError},
};

/// File names within a bundle.
pub(crate) const GRAPH_FILE: &str = "model.onnx";
pub(crate) const WEIGHTS_FILE: &str = "model.onnx.data";

/// Domain of the project's own operators.
pub const OPERATOR_DOMAIN: &str = "slm";
/// `LoraAdd(y, x) -> y`: adds the adapter's output for `x` to each row of `y`. Attribute `group`.
pub const LORA_ADD: &str = "LoraAdd";
/// `Embedding(ids, weights) -> x`: rows of a packed matrix. Attributes `formats` (see [`part_formats`]), `inputs`,
/// `outputs`.
pub const EMBEDDING: &str = "Embedding";
/// `NormLinear(x, weights, gain, norm_bias, bias) -> y`: norm of `x` times a packed matrix, plus the bias and each row's
/// adapter. Inputs after the second are optional: attributes `bias` and `norm_bias` (0 or 1) say which are there. Attributes
/// as `Embedding`; `norm` (`rms` or `layer`; none without it) with `epsilon`; and `group` if adapters may apply.
pub const NORM_LINEAR: &str = "NormLinear";
/// `LinearAdd(x, weights, residual, bias) -> y`: `scale` times the product of `x` and a packed matrix, with the bias and
/// each row's adapter in it, plus the residual. Inputs after the second are optional: attributes `residual` and `bias` say
/// which are there (0 or 1). Attributes as `Embedding`, `group` and `scale`; `activation` of `x` (`silu`, `gelu_tanh`,
/// `gelu`, `relu_squared`; none without it), with `gated` 1 that of its first half times its second.
pub const LINEAR_ADD: &str = "LinearAdd";
/// `NormAdd(x, residual, gain, norm_bias) -> y`: the residual plus `scale` times the norm of `x`. The last input is
/// optional: attribute `norm_bias` says whether it is there. Attributes `norm`, `epsilon`, `scale`.
pub const NORM_ADD: &str = "NormAdd";
/// `Experts(x, router, up, down, residual, gain, norm_bias) -> y`: a feed-forward block with experts of which each row of the
/// norm of `x` uses those of the largest scores, its result times `scale` plus the residual. `router` is `[experts, inputs]`;
/// `up` and `down` are the bytes of the matrices of all experts. Inputs after the fourth are optional: attributes `residual`
/// and `norm_bias` (0 or 1) say which are there. Attributes `used`, `normalized`; `inputs`, `size`, `outputs`; `up_format`
/// and `down_format` (the name of one format, or `f32`); `activation`, `gated`, `scale` as of `LinearAdd`; `norm`, `epsilon`.
pub const EXPERTS: &str = "Experts";
/// `Attention(qkv, q_gain, k_gain, bias) -> y`: norms queries and keys and applies rotary embedding to them, appends
/// keys and values to the pages of their sequences, and attends to them. Inputs after the first are optional. Attributes
/// `layer` (whose pages are used), `heads`, `kv_heads`, `head_dim`, `scale`; `window` for a sliding window, `softcap` for a
/// soft cap; `rope`, the index of the rotary embedding, whose tables are the session's (none without rotation); `qk_norm` (1
/// with gains),
/// `epsilon`, `norm_span_token` (1 for a norm over all
/// heads of a token) and `norm_after_rotary`; `shared` (1 if the pages are those of another layer: rows of `qkv` are queries
/// alone), `keys_as_values` (1 if rows of `qkv` have no values, because the keys are the values, too), and `value_epsilon` for a
/// norm of values; `gated` (1 if each query head has a gate behind it, whose sigmoid multiplies the head's result);
/// `bias_positions` (there if the last input is a bias of scores by distance, `[heads, 2 * bias_positions - 1]`).
pub const ATTENTION: &str = "Attention";
/// `ShortConvolution(x, weights, bias) -> y`: `c * (convolution(b * x) + bias)` of rows that are `b`, `c` and `x` side by side, with the
/// sequence's state before them. Weights are `[kernel, width]`, the last one that of the token itself. The last input is optional:
/// attribute `bias` says whether it is there. Attributes `layer` (whose states are used), `width`, `kernel`.
pub const SHORT_CONVOLUTION: &str = "ShortConvolution";
/// `DeltaRule(x, weights, rates, steps, gain) -> y`: the gated delta rule over rows that are queries, keys, values, gates `z`, `b`
/// and `a` side by side, from the sequence's state on, normed and gated. Weights of the convolution are `[kernel, channels]`; `rates`
/// are exponentials of the logarithms of the checkpoint. Attributes `layer` (whose states are used), `key_heads`, `value_heads`,
/// `key_dim`, `value_dim`, `kernel`, `epsilon`.
pub const DELTA_RULE: &str = "DeltaRule";

/// `BankAdd(y, x, a, b, units) -> y`: adds each row's adapter, of which the bank has the units `units[row]`, to a projection; see
/// [`rows`]. Attributes `linears`, and `outputs`: those of each linear layer, as in `576,192,192`.
pub const BANK_ADD: &str = "BankAdd";

/// Storage type of the linear layers' weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Precision {
    /// 32-bit floats; the reference.
    F32,
    /// 16-bit floats.
    F16,
    /// 4-bit integers, the embedding and the head of 8 bits, but see `quantize`.
    Int4,
    /// 8-bit integers.
    Int8,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Int4 => "Int4",
            Self::Int8 => "Int8",
        })
    }
}

/// A build that failed; its output is not usable.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A tensor could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The graph or its weights could not be written.
    #[error("writing the graph: {0}")]
    Write(#[from] io::Error),
    /// The attention operator does not support the model's head size.
    #[error("heads of {0}: attention takes multiples of 16 up to {HEAD_DIM_MAX}")]
    HeadDim(usize),
    /// The flavour does not exist.
    #[error("precision {}: {why}", .flavour.precision)]
    Flavour {
        /// The flavour.
        flavour: Flavour,
        /// The reason, and what to choose.
        why: &'static str,
    },
    /// The model cannot do what it is converted for.
    #[error("{0}")]
    Task(&'static str),
    /// Graphs of rows cannot express the model.
    #[error("{0} are not there yet in graphs for accelerators; serve the model on the CPU")]
    Form(&'static str),
}

/// What stands against a graph of `form`: an encoder has no logits, and the layers of a graph of whole texts share their pages.
fn beyond(form: Form, model: &Architecture) -> Option<&'static str> {
    if form != Form::States {
        let refusal =
            "this model is an encoder, which turns texts into vectors and cannot generate: set spec.task to Embed";
        return model.encoder.as_ref().map(|_| refusal);
    }
    let shape = |attention: &Attention| (attention.heads, attention.kv_heads, attention.head_dim);
    let first = model.layers.first().and_then(Layer::attention).map(shape);
    let alike = |layer: &Layer| {
        layer
            .attention()
            .is_some_and(|attention| Some(shape(attention)) == first && !matches!(attention.kv, KeyValues::OfLayer(_)))
    };
    (!model.layers.iter().all(alike)).then_some(
        "embeddings are made by models whose layers all attend, with heads of one size and keys of their own; choose another \
         model for spec.task Embed",
    )
}

/// Builds the graph of `checkpoint` into `dir`. `progress` is called with finished and total layers.
pub fn build(
    checkpoint: &Checkpoint,
    flavour: Flavour,
    dir: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), GraphError> {
    if let Some(why) = flavour.refusal() {
        return Err(GraphError::Flavour { flavour, why });
    }
    if let Some(part) = beyond(flavour.form, checkpoint.architecture()) {
        return Err(GraphError::Task(part));
    }
    if !flavour.is_paged()
        && let Some(part) = rows::beyond(flavour.form, checkpoint.architecture())
    {
        return Err(GraphError::Form(part));
    }
    for attention in checkpoint.architecture().layers.iter().filter_map(Layer::attention) {
        let head_dim = attention.head_dim;
        if !head_dim.is_multiple_of(16) || head_dim > HEAD_DIM_MAX {
            return Err(GraphError::HeadDim(head_dim));
        }
    }
    let weights = crate::weights::WeightFile::create(dir, WEIGHTS_FILE)?;
    let mut builder = builder::Builder::new(checkpoint, flavour, weights);
    decoder::decoder(&mut builder, progress)?;
    let model = builder.finish()?;
    std::fs::write(dir.join(GRAPH_FILE), prost::Message::encode_to_vec(&model))?;
    Ok(())
}

/// Prefix of the names of the values of `projection` of `layer`.
fn value_name(projection: Projection, layer: usize) -> String {
    format!("layers.{layer}.{projection:?}").to_lowercase()
}

/// Bias of `projection` of `layer`; zero for linear layers without one. `None` if none of its linear layers has one.
fn bias(b: &builder::Builder<'_>, layer: usize, projection: Projection) -> Result<Option<Vec<f32>>, GraphError> {
    let linears = b.architecture().fused(layer, projection);
    if linears.iter().all(|linear| !linear.bias) {
        return Ok(None);
    }
    let prefix = b.architecture().prefix(layer);
    let mut bias = Vec::new();
    for linear in linears {
        if linear.bias {
            bias.extend(b.checkpoint.tensor(&linear.name.within(&prefix).bias())?.data);
        } else {
            bias.resize(bias.len() + linear.outputs, 0.0);
        }
    }
    Ok(Some(bias))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::Model;

    fn built(form: Form, precision: Precision) -> Model {
        built_of("gemma2", form, precision)
    }

    fn built_of(family: &str, form: Form, precision: Precision) -> Model {
        let family = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/parity/data").join(family);
        let dir = tempfile::tempdir().unwrap();
        let flavour = Flavour { form, precision, activations: Activations::F32 };
        build(&Checkpoint::open(&family).unwrap(), flavour, dir.path(), &mut |_, _| ()).unwrap();
        Model::decode(std::fs::read(dir.path().join(GRAPH_FILE)).unwrap().as_slice()).unwrap()
    }

    /// Domains and names of operators, each once.
    fn operators(model: &Model) -> std::collections::BTreeSet<(&str, &str)> {
        let nodes = &model.graph.as_ref().unwrap().node;
        nodes.iter().map(|node| (node.domain.as_str(), node.op_type.as_str())).collect()
    }

    #[test]
    fn graphs_of_standard_operators_have_no_others() {
        // Scores of Gemma 2 have a soft cap, which TensorRT-RTX does not take in `Attention`.
        for (family, one_operator) in [("llama", true), ("gemma2", false)] {
            let model = built_of(family, Form::Standard, Precision::F32);
            let operators = operators(&model);
            assert!(operators.contains(&("", "TensorScatter")), "{operators:?}");
            assert_eq!(operators.contains(&("", "Attention")), one_operator, "{family}: {operators:?}");
            assert!(operators.iter().all(|(domain, _)| domain.is_empty()), "{operators:?}");
            assert_eq!((model.ir_version, model.opset_import.len(), model.opset_import[0].version), (11, 1, 24));
        }
    }

    #[test]
    fn graphs_for_openvino_have_the_operators_that_it_takes() {
        for (precision, own) in [(Precision::F32, None), (Precision::Int4, Some(("com.microsoft", "MatMulNBits")))] {
            let model = built(Form::Delta, precision);
            let others: Vec<_> = operators(&model).into_iter().filter(|(domain, _)| !domain.is_empty()).collect();
            assert_eq!(others, Vec::from_iter(own));
            let operators = operators(&model);
            for newer in ["TensorScatter", "Attention", "RotaryEmbedding", "RMSNormalization"] {
                assert!(!operators.contains(&("", newer)), "{newer}");
            }
        }
    }

    #[test]
    fn what_a_form_has_no_operators_for_is_refused() {
        let flavour = |form, precision, activations| Flavour { form, precision, activations }.refusal();
        let refused = flavour(Form::Standard, Precision::Int8, Activations::F16).unwrap();
        assert!(refused.contains("choose F16"), "{refused}");
        assert_eq!(flavour(Form::Delta, Precision::Int8, Activations::F16), None);
        assert_eq!(flavour(Form::Standard, Precision::F16, Activations::F16), None);
        assert!(flavour(Form::Delta, Precision::F32, Activations::F16).is_some());
    }
}

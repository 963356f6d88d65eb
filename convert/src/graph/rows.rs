//! Graphs of rows: a batch of `rows` sequences, each with `tokens` new tokens, padded on the right.
//!
//! | input | type | meaning |
//! |---|---|---|
//! | `input_ids` | i64 `[rows, tokens]` | the new tokens |
//! | `logits_indices` | i64 `[wanted]` | tokens that need logits: indices into the flat `[rows * tokens]` |
//! | `seqlens_k` | i32 `[rows]` | position of each row's last new token, padding included |
//! | `total_sequence_length` | i32 `[1]` | bound on the positions of any row, these included |
//! | `past_key.L`, `past_value.L` | floats `[rows, kv_heads, positions, head_dim]` | keys and values of layer `L` |
//! | `rope.I.cos`, `rope.I.sin` | floats `[positions, dim / 2]` | tables of rotary embedding `I` |
//! | `position_ids` | i64 `[rows, tokens]` | positions; only where attention itself cannot turn queries and keys |
//! | `lora.P.a`, `lora.P.b` | floats `[columns, inputs]`, `[columns, outputs]` | bank of adapters of projection `P` |
//! | `adapter_units` | i32 `[rows, 2]` | units of the bank that each row's adapter has: the first, and that behind the last |
//!
//! Outputs are `logits` f32 `[wanted, vocab]` and `present_key.L`, `present_value.L`: the memory of the inputs, in which the new
//! positions are written. What padding writes lies behind a row's end, where the next tokens overwrite it.
//!
//! **Bank.** An adapter of rank `r` takes `r` units of the bank in every projection. A unit is `M` columns where the
//! projection has `M` linear layers: the adapter's columns are those of its first linear layer (`r` of them), then those of
//! the next. Column `c` of linear layer `j` has row `c` of its A, and column `c` of its B, times the scaling, at the outputs of
//! layer `j`; elsewhere zeros. So an adapter is one range of bytes of each tensor.

use super::{
    BANK_ADD, GraphError, OPERATOR_DOMAIN, Precision,
    builder::{Builder, MICROSOFT},
    common::{capped, logits, narrowed, select_wanted},
    gqa,
};
use crate::{
    architecture::{Architecture, KeyValues, Layer, Linear, Projection},
    block_bits::{Width, in_blocks},
    onnx::{Attribute, Dim, ElementType, ValueInfo},
};

/// Tokens of a block of 4-bit or 8-bit weights with one scale.
const BLOCK: usize = slm_kernels::BLOCK;

/// Name of the keys, or values, that a step of layer `layer` takes and gives.
#[must_use]
pub fn cache_names(layer: usize) -> [[String; 2]; 2] {
    ["key", "value"].map(|which| ["past", "present"].map(|when| format!("{when}_{which}.{layer}")))
}

/// Names of the cosines and sines of rotary embedding `rope`.
#[must_use]
pub fn rope_names(rope: usize) -> [String; 2] {
    ["cos", "sin"].map(|table| format!("rope.{rope}.{table}"))
}

/// Names of both tensors of the bank of `projection` of `layer`.
#[must_use]
pub fn bank_names(layer: usize, projection: Projection) -> [String; 2] {
    ["a", "b"].map(|side| format!("lora.{}.{side}", super::value_name(projection, layer)))
}

/// Whether the graph has `position_ids`.
#[must_use]
pub fn has_positions(architecture: &Architecture) -> bool {
    architecture.layers.iter().any(|layer| gqa::turns_before(architecture, &layer.attention))
}

/// Projections that have linear layers, with them.
pub fn projections(architecture: &Architecture) -> impl Iterator<Item = (usize, Projection, &[Linear])> {
    let all = architecture.projections();
    let all = all.map(|(layer, projection)| (layer, projection, architecture.fused(layer, projection)));
    all.filter(|(_, _, linears)| !linears.is_empty())
}

/// A part of the model that graphs of rows cannot express yet; `None` if they express all.
pub(super) fn beyond(architecture: &Architecture) -> Option<&'static str> {
    let any = |part: fn(&Layer) -> bool| architecture.layers.iter().any(part);
    let parts = [
        (architecture.layer_inputs.is_some(), "inputs of layers"),
        (any(|layer| layer.feed_forward.experts.is_some()), "experts of feed-forward blocks"),
        (any(|layer| layer.attention.kv != KeyValues::Own), "keys and values of other layers"),
        (any(|layer| layer.attention.value_norm.is_some()), "norms of values"),
        (any(|layer| layer.output_scale.is_some()), "scales of layers"),
    ];
    parts.into_iter().find(|(there, _)| *there).map(|(_, part)| part)
}

pub(super) fn declare(b: &mut Builder<'_>) -> Result<(), GraphError> {
    use Dim::{Fixed, Symbol};
    let (architecture, float) = (b.architecture(), b.float());
    b.input(ValueInfo::tensor("input_ids", ElementType::I64, &[Symbol("rows"), Symbol("tokens")]));
    b.input(ValueInfo::tensor("logits_indices", ElementType::I64, &[Symbol("wanted")]));
    b.input(ValueInfo::tensor("seqlens_k", ElementType::I32, &[Symbol("rows")]));
    b.input(ValueInfo::tensor("total_sequence_length", ElementType::I32, &[Fixed(1)]));
    if has_positions(architecture) {
        b.input(ValueInfo::tensor("position_ids", ElementType::I64, &[Symbol("rows"), Symbol("tokens")]));
    }
    for (index, rope) in architecture.ropes.iter().enumerate() {
        for name in rope_names(index) {
            b.input(ValueInfo::tensor(name, float, &[Symbol("positions"), Fixed(rope.dim / 2)]));
        }
    }
    b.input(ValueInfo::tensor("adapter_units", ElementType::I32, &[Symbol("rows"), Fixed(2)]));
    for (index, layer) in architecture.layers.iter().enumerate() {
        let (heads, width) = (layer.attention.kv_heads, layer.attention.head_dim);
        for [past, present] in cache_names(index) {
            let dims = [Symbol("rows"), Fixed(heads), Symbol("positions"), Fixed(width)];
            b.input(ValueInfo::tensor(past, float, &dims));
            b.output(ValueInfo::tensor(present, float, &dims));
        }
    }
    for (layer, projection, linears) in projections(architecture) {
        let [a, y] = bank_names(layer, projection);
        let rows = columns(linears.len());
        b.input(ValueInfo::tensor(a, float, &[rows, Fixed(inputs(linears))]));
        b.input(ValueInfo::tensor(y, float, &[rows, Fixed(outputs(linears))]));
    }
    b.output(ValueInfo::tensor("logits", ElementType::F32, &[Symbol("wanted"), Fixed(architecture.vocab_size)]));
    b.i64s("flat", &[-1, architecture.hidden_size as i64])?;
    Ok(())
}

/// Dimension of the columns of a bank.
fn columns(linears: usize) -> Dim {
    Dim::Symbol(["no_columns", "columns_1", "columns_2", "columns_3"].get(linears).copied().unwrap_or("columns"))
}

fn inputs(linears: &[Linear]) -> usize {
    linears.first().map_or(0, |linear| linear.inputs)
}

fn outputs(linears: &[Linear]) -> usize {
    linears.iter().map(|linear| linear.outputs).sum()
}

/// `projection` of `layer` applied to `x`, with each row's adapter; gives the name of the result.
pub(super) fn projection(
    b: &mut Builder<'_>,
    layer: usize,
    projection: Projection,
    x: &str,
) -> Result<String, GraphError> {
    let linears = b.architecture().fused(layer, projection);
    let prefix = b.architecture().prefix(layer);
    let name = super::value_name(projection, layer);
    let part = |of: &str| format!("{name}.{of}");
    let weights: Vec<String> = linears.iter().map(|linear| linear.name.within(&prefix).weight()).collect();
    let mut base = linear(b, &weights, [outputs(linears), inputs(linears)], x, &name)?;
    if let Some(bias) = super::bias(b, layer, projection)? {
        b.floats(&part("bias"), &[bias.len()], &bias)?;
        b.node("", "Add", &[&base, &part("bias")], &[&part("biased")], vec![]);
        base = part("biased");
    }
    let [a, y] = bank_names(layer, projection);
    let widths: Vec<String> = linears.iter().map(|linear| linear.outputs.to_string()).collect();
    let attributes =
        vec![Attribute::int("linears", linears.len() as i64), Attribute::string("outputs", &widths.join(","))];
    b.node(OPERATOR_DOMAIN, BANK_ADD, &[&base, x, &a, &y, "adapter_units"], &[&part("out")], attributes);
    Ok(part("out"))
}

/// Product of `x` and the tensors of these names, `[outputs, inputs]` under one another; gives its name.
fn linear(
    b: &mut Builder<'_>,
    weights: &[String],
    [outputs, inputs]: [usize; 2],
    x: &str,
    name: &str,
) -> Result<String, GraphError> {
    let (weight, scale, out) = (format!("{name}.weight"), format!("{name}.scale"), format!("{name}.base"));
    let width = match b.flavour.precision {
        Precision::F32 | Precision::F16 => {
            let mut data = Vec::with_capacity(outputs * inputs);
            for name in weights {
                data.extend_from_slice(&b.checkpoint.tensor(name)?.data);
            }
            b.floats(&weight, &[outputs, inputs], &data)?;
            b.node(MICROSOFT, "FusedMatMul", &[x, &weight], &[&out], vec![Attribute::int("transB", 1)]);
            return Ok(out);
        }
        Precision::Int4 => Width::Four,
        Precision::Int8 => Width::Eight,
    };
    let blocks = in_blocks(b.checkpoint, weights, width)?;
    let per_row = inputs.div_ceil(BLOCK);
    b.bytes(&weight, &[outputs, per_row, width.bytes(BLOCK)], &blocks.quants)?;
    b.floats(&scale, &[outputs, per_row], &blocks.scales)?;
    let attributes = vec![
        Attribute::int("K", inputs as i64),
        Attribute::int("N", outputs as i64),
        Attribute::int("bits", width.bits() as i64),
        Attribute::int("block_size", BLOCK as i64),
    ];
    b.node(MICROSOFT, "MatMulNBits", &[x, &weight, &scale], &[&out], attributes);
    Ok(out)
}

/// Head over the requested rows of the normed and scaled stream, as `logits`.
pub(super) fn head(b: &mut Builder<'_>, normed: &str) -> Result<(), GraphError> {
    let head = &b.architecture().head;
    b.node("", "Reshape", &[normed, "flat"], &["normed.flat"], vec![]);
    select_wanted(b, "normed.flat", "selected");
    let wanted = narrowed(b, "selected");
    let weight = if head.tied {
        "embedding"
    } else {
        let weight = b.checkpoint.tensor(&head.name.weight())?;
        b.floats("head", &weight.shape, &weight.data)?;
        "head"
    };
    let attributes = vec![Attribute::int("transB", 1)];
    b.node(MICROSOFT, "FusedMatMul", &[&wanted, weight], &["logits.plain"], attributes);
    let mut plain = "logits.plain";
    if head.bias {
        let mut bias = b.checkpoint.tensor(&head.name.bias())?;
        bias.data.iter_mut().for_each(|bias| *bias *= head.scale);
        b.floats("head.bias", &bias.shape, &bias.data)?;
        b.node("", "Add", &[plain, "head.bias"], &["logits.biased"], vec![]);
        plain = "logits.biased";
    }
    b.node("", "Cast", &[plain], &[logits(head)], vec![Attribute::int("to", ElementType::F32 as i64)]);
    Ok(capped(b)?)
}

//! Graphs of rows: a batch of `rows` sequences, each with `tokens` new tokens, padded on the right.
//!
//! | input | type | meaning |
//! |---|---|---|
//! | `input_ids` | i64 `[rows, tokens]` | the new tokens |
//! | `logits_indices` | i64 `[wanted]` | tokens that need logits: indices into the flat `[rows * tokens]` |
//! | `seqlens_k` | i32 `[rows]` | position of each row's last new token, padding included |
//! | `total_sequence_length` | i32 `[1]` | bound on the positions of any row, these included |
//! | `past` | i64 `[rows]` | tokens before the new ones |
//! | `key_positions` | i64 `[positions]` | 0, 1, 2 and so on |
//! | `past_key.L`, `past_value.L` | floats `[rows, kv_heads, positions, head_dim]` | keys and values of layer `L` |
//! | `rope.I.cos`, `rope.I.sin` | floats `[positions, dim / 2]` | tables of rotary embedding `I` |
//! | `position_ids` | i64 `[rows, tokens]` | positions of the new tokens |
//! | `lora.P.a`, `lora.P.b` | floats `[columns, inputs]`, `[columns, outputs]` | bank of adapters of projection `P` |
//! | `adapter_units` | i32 `[rows, 2]` | units of the bank that each row's adapter has: the first, and that behind the last; of the form `Gqa` |
//! | `lora_mask.M` | bool `[rows, 1, columns]` | for projections of `M` linear layers: whether a column is of the row's adapter; of the other forms |
//!
//! Which of the inputs of positions there are depends on the form: [`positions`].
//!
//! Outputs are `logits` f32 `[wanted, vocab]` and `present_key.L`, `present_value.L`: the memory of the inputs, in which the new
//! positions are written. What padding writes lies behind a row's end, where the next tokens overwrite it. The form
//! [`Form::Delta`] has `new_key.L`, `new_value.L`, floats `[rows, kv_heads, tokens, head_dim]`, instead, and writes nothing itself.
//!
//! **Bank.** An adapter of rank `r` takes `r` units of the bank in every projection. A unit is `M` columns where the
//! projection has `M` linear layers: the adapter's columns are those of its first linear layer (`r` of them), then those of
//! the next. Column `c` of linear layer `j` has row `c` of its A, and column `c` of its B, times the scaling, at the outputs of
//! layer `j`; elsewhere zeros. So an adapter is one range of bytes of each tensor.

use super::{
    BANK_ADD, Form, GraphError, OPERATOR_DOMAIN, Precision,
    builder::{Builder, MICROSOFT},
    common::{capped, logits, narrowed, select_wanted},
    gqa, heads, masks,
    plain::transposed,
};
use crate::{
    architecture::{Architecture, Attention, KeyValues, Layer, Linear, Mixer, Projection},
    block_bits::{Width, in_blocks},
    onnx::{Attribute, Dim, ElementType, ValueInfo},
};

/// Tokens of a block of 4-bit or 8-bit weights with one scale.
const BLOCK: usize = slm_kernels::BLOCK;

/// Name of the keys, or values, that a step of layer `layer` takes and gives.
#[must_use]
pub fn cache_names(form: Form, layer: usize) -> [[String; 2]; 2] {
    let gives = if form == Form::Delta { "new" } else { "present" };
    ["key", "value"].map(|which| ["past", gives].map(|when| format!("{when}_{which}.{layer}")))
}

/// An input that says where tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Position of each row's last new token.
    Last,
    /// Bound on the positions of any row.
    Bound,
    /// Tokens before the new ones.
    Past,
    /// Positions of the new tokens.
    Tokens,
    /// Positions of keys.
    Keys,
}

impl Position {
    /// Name of the input.
    #[must_use]
    pub fn name(self) -> &'static std::ffi::CStr {
        match self {
            Self::Last => c"seqlens_k",
            Self::Bound => c"total_sequence_length",
            Self::Past => c"past",
            Self::Tokens => c"position_ids",
            Self::Keys => c"key_positions",
        }
    }

    fn declared(self) -> ValueInfo {
        let (rows, tokens, positions) = (Dim::Symbol("rows"), Dim::Symbol("tokens"), Dim::Symbol("positions"));
        let (element, dims) = match self {
            Self::Last => (ElementType::I32, vec![rows]),
            Self::Bound => (ElementType::I32, vec![Dim::Fixed(1)]),
            Self::Past => (ElementType::I64, vec![rows]),
            Self::Tokens => (ElementType::I64, vec![rows, tokens]),
            Self::Keys => (ElementType::I64, vec![positions]),
        };
        ValueInfo::tensor(self.name().to_string_lossy(), element, &dims)
    }
}

/// Inputs of positions that a graph of this form has.
#[must_use]
pub fn positions(form: Form, architecture: &Architecture) -> Vec<Position> {
    match form {
        Form::Paged | Form::States => Vec::new(),
        Form::Gqa => {
            // Attention itself cannot turn some queries and keys.
            let mut attentions = architecture.layers.iter().filter_map(Layer::attention);
            let turned = attentions.any(|attention| gqa::turns_before(architecture, attention));
            [Position::Last, Position::Bound].into_iter().chain(turned.then_some(Position::Tokens)).collect()
        }
        Form::Standard | Form::Delta => vec![Position::Past, Position::Tokens, Position::Keys],
    }
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

/// Name of the mask of projections of `linears` linear layers.
#[must_use]
pub fn mask_name(linears: usize) -> String {
    format!("lora_mask.{linears}")
}

/// Numbers of linear layers that projections have, each once.
#[must_use]
pub fn mask_widths(architecture: &Architecture) -> Vec<usize> {
    let mut counts: Vec<_> = projections(architecture).map(|(_, _, linears)| linears.len()).collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// Projections that have linear layers, with them.
pub fn projections(architecture: &Architecture) -> impl Iterator<Item = (usize, Projection, &[Linear])> {
    let all = architecture.projections();
    let all = all.map(|(layer, projection)| (layer, projection, architecture.fused(layer, projection)));
    all.filter(|(_, _, linears)| !linears.is_empty())
}

/// A part of the model that graphs of rows cannot express yet; `None` if they express all.
pub(super) fn beyond(form: Form, architecture: &Architecture) -> Option<&'static str> {
    let any = |part: fn(&Layer) -> bool| architecture.layers.iter().any(part);
    let any_attention =
        |part: fn(&Attention) -> bool| architecture.layers.iter().filter_map(Layer::attention).any(part);
    let parts = [
        (architecture.layer_inputs.is_some(), "inputs of layers"),
        (any(|layer| layer.feed_forward.experts.is_some()), "experts of feed-forward blocks"),
        (any(|layer| matches!(layer.mixer, Mixer::ShortConvolution(_))), "short convolutions"),
        (any(|layer| matches!(layer.mixer, Mixer::DeltaRule(_))), "layers with linear attention"),
        (any_attention(|attention| attention.gated), "gates of attention"),
        (any_attention(|attention| attention.kv != KeyValues::Own), "keys and values of other layers"),
        (any_attention(|attention| attention.value_norm.is_some()), "norms of values"),
        (any(|layer| layer.output_scale.is_some()), "scales of layers"),
        (form != Form::Gqa && any(heads::norms_turned_tokens), "norms of turned queries over all heads"),
    ];
    parts.into_iter().find(|(there, _)| *there).map(|(_, part)| part)
}

/// Attention of `layer`; graphs of rows have no other token mixers, see [`beyond`].
pub(super) fn attention_of(architecture: &Architecture, layer: usize) -> Result<&Attention, GraphError> {
    architecture.layers[layer].attention().ok_or(GraphError::Form("layers without keys and values"))
}

pub(super) fn declare(b: &mut Builder<'_>) -> Result<(), GraphError> {
    use Dim::{Fixed, Symbol};
    let (architecture, float, form) = (b.architecture(), b.float(), b.flavour.form);
    b.input(ValueInfo::tensor("input_ids", ElementType::I64, &[Symbol("rows"), Symbol("tokens")]));
    b.input(ValueInfo::tensor("logits_indices", ElementType::I64, &[Symbol("wanted")]));
    for position in positions(form, architecture) {
        b.input(position.declared());
    }
    for (index, rope) in architecture.ropes.iter().enumerate() {
        for name in rope_names(index) {
            b.input(ValueInfo::tensor(name, float, &[Symbol("positions"), Fixed(rope.dim / 2)]));
        }
    }
    if form == Form::Gqa {
        b.input(ValueInfo::tensor("adapter_units", ElementType::I32, &[Symbol("rows"), Fixed(2)]));
    } else {
        b.floats("zero", &[], &[0.0])?;
        for linears in mask_widths(architecture) {
            let dims = [Symbol("rows"), Fixed(1), columns(linears)];
            b.input(ValueInfo::tensor(mask_name(linears), ElementType::Bool, &dims));
        }
    }
    for (index, layer) in architecture.layers.iter().enumerate() {
        let Some(Attention { kv_heads: heads, head_dim: width, .. }) = layer.attention() else { continue };
        for [takes, gives] in cache_names(form, index) {
            let dims = |length| [Symbol("rows"), Fixed(*heads), Symbol(length), Fixed(*width)];
            b.input(ValueInfo::tensor(takes, float, &dims("positions")));
            b.output(ValueInfo::tensor(gives, float, &dims(if form == Form::Delta { "tokens" } else { "positions" })));
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
    match form {
        Form::Paged | Form::States | Form::Gqa => Ok(()),
        Form::Standard => masks::standard(b),
        Form::Delta => masks::delta(b),
    }
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
    if b.flavour.form == Form::Gqa {
        let widths: Vec<String> = linears.iter().map(|linear| linear.outputs.to_string()).collect();
        let attributes =
            vec![Attribute::int("linears", linears.len() as i64), Attribute::string("outputs", &widths.join(","))];
        b.node(OPERATOR_DOMAIN, BANK_ADD, &[&base, x, &a, &y, "adapter_units"], &[&part("out")], attributes);
        return Ok(part("out"));
    }
    times_transposed(b, x, &a, &part("shrunk"));
    // Chosen, not multiplied: what another's adapter makes of a row may be infinite.
    b.node("", "Where", &[&mask_name(linears.len()), &part("shrunk"), "zero"], &[&part("masked")], vec![]);
    b.node("", "MatMul", &[&part("masked"), &y], &[&part("delta")], vec![]);
    b.node("", "Add", &[&base, &part("delta")], &[&part("out")], vec![]);
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
            matrix(b, x, (&weight, &data, [outputs, inputs]), &out)?;
            return Ok(out);
        }
        Precision::Int4 => Width::Four,
        Precision::Int8 => Width::Eight,
    };
    let blocks = in_blocks(b.checkpoint, weights, width)?;
    if b.flavour.form == Form::Standard {
        let columns = blocks.in_columns(outputs, inputs);
        let matrix = format!("{name}.matrix");
        b.i4s(&weight, &[inputs, outputs], &columns.quants)?;
        b.floats(&scale, &[inputs.div_ceil(BLOCK), outputs], &columns.scales)?;
        let attributes = vec![Attribute::int("axis", 0), Attribute::int("block_size", BLOCK as i64)];
        b.node("", "DequantizeLinear", &[&weight, &scale], &[&matrix], attributes);
        b.node("", "MatMul", &[x, &matrix], &[&out], vec![]);
        return Ok(out);
    }
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

/// Product of `x` and a matrix `[outputs, inputs]`, which is added under its name in the order that suits the form.
fn matrix(
    b: &mut Builder<'_>,
    x: &str,
    (name, data, [outputs, inputs]): (&str, &[f32], [usize; 2]),
    out: &str,
) -> Result<(), GraphError> {
    if b.flavour.form == Form::Gqa {
        b.floats(name, &[outputs, inputs], data)?;
        times_transposed(b, x, name, out);
    } else {
        b.floats(name, &[inputs, outputs], &transposed(data, inputs))?;
        b.node("", "MatMul", &[x, name], &[out], vec![]);
    }
    Ok(())
}

/// Product of `x` and a transposed matrix.
fn times_transposed(b: &mut Builder<'_>, x: &str, matrix: &str, out: &str) {
    if b.flavour.form == Form::Gqa {
        b.node(MICROSOFT, "FusedMatMul", &[x, matrix], &[out], vec![Attribute::int("transB", 1)]);
        return;
    }
    let turned = format!("{out}.matrix");
    b.node("", "Transpose", &[matrix], &[&turned], vec![]);
    b.node("", "MatMul", &[x, &turned], &[out], vec![]);
}

/// Head over the requested rows of the normed and scaled stream, as `logits`.
pub(super) fn head(b: &mut Builder<'_>, normed: &str) -> Result<(), GraphError> {
    let head = &b.architecture().head;
    b.node("", "Reshape", &[normed, "flat"], &["normed.flat"], vec![]);
    select_wanted(b, "normed.flat", "selected");
    let wanted = narrowed(b, "selected");
    if head.tied {
        times_transposed(b, &wanted, "embedding", "logits.plain");
    } else {
        let weight = b.checkpoint.tensor(&head.name.weight())?;
        matrix(b, &wanted, ("head", &weight.data, [weight.shape[0], weight.shape[1]]), "logits.plain")?;
    }
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

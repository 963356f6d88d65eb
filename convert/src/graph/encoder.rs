//! Nodes of encoders, and of graphs that end with states of tokens, in every precision.

use super::{
    GraphError,
    builder::Builder,
    common::{rms_norm, stream_tensor},
};
use crate::{
    architecture::{Architecture, Encoder, Layer, Name, Norm, NormKind, RelativeBias, Rows},
    onnx::{Attribute, Dim, ElementType, ValueInfo},
};

/// Input of the rows of position embeddings.
pub(super) const POSITIONS: &str = "positions";
/// Bias of scores by distance, of all layers.
pub(super) const RELATIVE_BIAS: &str = "relative_bias";
/// Result of graphs of whole texts.
pub(super) const STATES: &str = "states";

/// Declares inputs and the output of a graph of whole texts.
pub(super) fn declare(b: &mut Builder<'_>) {
    use Dim::{Fixed, Symbol};
    b.input(ValueInfo::tensor("input_ids", ElementType::I64, &[Symbol("tokens")]));
    if positions(b).is_some() {
        b.input(ValueInfo::tensor(POSITIONS, ElementType::I64, &[Symbol("tokens")]));
    }
    b.output(ValueInfo::tensor(STATES, ElementType::F32, &[Symbol("tokens"), Fixed(b.architecture().hidden_size)]));
}

fn positions<'a>(b: &Builder<'a>) -> Option<&'a Rows> {
    b.architecture().encoder.as_ref()?.positions.as_ref()
}

/// Embedded tokens `x` with their positions and token type, normed; `x` itself in a decoder. Gives the name of the result.
pub(super) fn embedded(b: &mut Builder<'_>, x: String) -> Result<String, GraphError> {
    let Some(encoder) = &b.architecture().encoder else { return Ok(x) };
    if let Some(bias) = &encoder.relative_bias {
        relative_bias(b, bias)?;
    }
    let Encoder { token_types, embedding_norm, .. } = encoder;
    let width = b.architecture().hidden_size;
    let of_types = match token_types {
        Some(Rows { name, first, .. }) => {
            b.checkpoint.tensor(&name.weight())?.data[first * width..][..encoder.types() * width].to_vec()
        }
        None => vec![0.0; width],
    };
    let mut total = x;
    if let Some(rows) = positions(b) {
        let table = b.checkpoint.tensor(&rows.name.weight())?.data;
        // A token's type is a part of its position's row: the table has all positions for each type.
        let mut all = Vec::with_capacity(table.len() / width * of_types.len());
        for of_type in of_types.chunks_exact(width) {
            for position in table.chunks_exact(width) {
                all.extend(position.iter().zip(of_type).map(|(x, y)| x + y));
            }
        }
        b.f32s("position_embedding", &[all.len() / width, width], &all)?;
        b.node("", "Gather", &["position_embedding", POSITIONS], &["positioned"], vec![]);
        b.node("", "Add", &[&total, "positioned"], &["embedded"], vec![]);
        total = "embedded".to_owned();
    } else if token_types.is_some() {
        b.f32s("type_embedding", &[width], &of_types[..width])?;
        b.node("", "Add", &[&total, "type_embedding"], &["embedded"], vec![]);
        total = "embedded".to_owned();
    }
    match embedding_norm {
        Some(of) => normed(b, &Name::new("", ""), of, &total),
        None => Ok(total),
    }
}

/// Adds the bias of scores by distance: `[heads, 2 * context - 1]`, from the key that is farthest before the query on.
fn relative_bias(b: &mut Builder<'_>, bias: &RelativeBias) -> Result<(), GraphError> {
    let Architecture { context_length, layers, .. } = b.architecture();
    let heads = layers.iter().find_map(Layer::attention).map_or(0, |attention| attention.heads);
    let most = *context_length as isize - 1;
    let table = b.checkpoint.tensor(&bias.name.weight())?.data;
    let of_head = |head| (-most..=most).map(move |distance| (head, distance));
    let all: Vec<f32> = (0..heads).flat_map(of_head).map(|(head, of)| table[bias.bucket(of) * heads + head]).collect();
    Ok(b.f32s(RELATIVE_BIAS, &[heads, 2 * context_length - 1], &all)?)
}

/// Norm of the stream `x`; gives the name of the result.
pub(super) fn normed(b: &mut Builder<'_>, prefix: &Name, of: &Norm, x: &str) -> Result<String, GraphError> {
    let tensors = of.name.within(prefix);
    let gain = stream_tensor(b, &tensors.weight())?;
    let out = format!("{x}.normed");
    let attributes =
        vec![Attribute::float("epsilon", of.epsilon), Attribute::int("axis", -1), Attribute::int("stash_type", 1)];
    match of.kind {
        NormKind::Rms => b.node("", rms_norm(b), &[x, &gain], &[&out], attributes),
        NormKind::Layer { bias } => {
            let bias = if bias { stream_tensor(b, &tensors.bias())? } else { String::new() };
            b.node("", "LayerNormalization", &[x, &gain, &bias], &[&out], attributes);
        }
    }
    Ok(out)
}

/// The result of the graph.
pub(super) fn output(b: &mut Builder<'_>, last: &str) {
    b.node("", "Identity", &[last], &[STATES], vec![]);
}

//! Nodes of encoders, and of graphs that end with states of tokens, in every precision.

use super::{
    GraphError,
    builder::Builder,
    common::{rms_norm, stream_tensor},
};
use crate::{
    architecture::{Encoder, Name, Norm, NormKind, Rows},
    onnx::{Attribute, Dim, ElementType, ValueInfo},
};

/// Input of the rows of position embeddings.
pub(super) const POSITIONS: &str = "positions";
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
    let Some(Encoder { token_types, embedding_norm, .. }) = &b.architecture().encoder else { return Ok(x) };
    // A text alone has one token type, so its embedding is a part of every position's.
    let of_type = match token_types {
        Some(Rows { name, first, .. }) => {
            let table = b.checkpoint.tensor(&name.weight())?;
            let width = b.architecture().hidden_size;
            table.data[first * width..][..width].to_vec()
        }
        None => vec![0.0; b.architecture().hidden_size],
    };
    let mut total = x;
    if let Some(rows) = positions(b) {
        let mut table = b.checkpoint.tensor(&rows.name.weight())?;
        for row in table.data.chunks_exact_mut(of_type.len()) {
            row.iter_mut().zip(&of_type).for_each(|(x, of_type)| *x += of_type);
        }
        b.f32s("position_embedding", &table.shape, &table.data)?;
        b.node("", "Gather", &["position_embedding", POSITIONS], &["positioned"], vec![]);
        b.node("", "Add", &[&total, "positioned"], &["embedded"], vec![]);
        total = "embedded".to_owned();
    } else if token_types.is_some() {
        b.f32s("type_embedding", &[of_type.len()], &of_type)?;
        b.node("", "Add", &[&total, "type_embedding"], &["embedded"], vec![]);
        total = "embedded".to_owned();
    }
    match embedding_norm {
        Some(of) => normed(b, &Name::new("", ""), of, &total),
        None => Ok(total),
    }
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

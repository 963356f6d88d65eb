//! Decoder with quantised weights: five nodes a layer. Norms, gates, residuals and adapters are fused into the linear
//! operators.

use slm_kernels::Packed;

use super::{
    EMBEDDING, FusedProjection, GraphError, LINEAR_ADD, NORM_LINEAR, OPERATOR_DOMAIN, Precision,
    builder::Builder,
    common::{attention, select_wanted},
};
use crate::{
    onnx::Attribute,
    quantize::{Bits, quantize},
};

/// Residual stream, and the name of the embedding table for a tied head.
pub(super) struct Stream {
    total: String,
    table: Vec<Attribute>,
}

/// Embeds `input_ids`.
pub(super) fn embedding(b: &mut Builder<'_>) -> Result<Stream, GraphError> {
    let table = matrix(b, "embedding", &["model.embed_tokens.weight".into()], Bits::Eight)?;
    b.node(OPERATOR_DOMAIN, EMBEDDING, &["input_ids", "embedding"], &["hidden"], table.clone());
    Ok(Stream { total: "hidden".into(), table })
}

/// Adds one layer after `stream`.
pub(super) fn layer(b: &mut Builder<'_>, layer: usize, stream: Stream) -> Result<Stream, GraphError> {
    let norm = |which: &str| format!("model.layers.{layer}.{which}_layernorm.weight");
    let Stream { total, table } = stream;
    let qkv = normed(b, layer, FusedProjection::Qkv, &total, &norm("input"))?;
    let attended = attention(b, layer, &qkv);
    let total = added(b, layer, FusedProjection::O, &attended, &total)?;
    let gate_up = normed(b, layer, FusedProjection::GateUp, &total, &norm("post_attention"))?;
    let total = added(b, layer, FusedProjection::Down, &gate_up, &total)?;
    Ok(Stream { total, table })
}

/// Final norm and head over the requested rows, as `logits`.
pub(super) fn head(b: &mut Builder<'_>, stream: Stream) -> Result<(), GraphError> {
    select_wanted(b, &stream.total, "wanted");
    let (weights, mut attributes) = if b.config().tie_word_embeddings {
        ("embedding", stream.table)
    } else {
        ("head", matrix(b, "head", &["lm_head.weight".into()], Bits::Eight)?)
    };
    attributes.push(gain(b, "model.norm.weight")?);
    b.node(OPERATOR_DOMAIN, NORM_LINEAR, &["wanted", weights, "model.norm.weight"], &["logits"], attributes);
    Ok(())
}

/// `group` of `layer` applied to the normed stream.
fn normed(
    b: &mut Builder<'_>,
    layer: usize,
    group: FusedProjection,
    x: &str,
    norm: &str,
) -> Result<String, GraphError> {
    let (weights, out, mut attributes) = projection(b, layer, group)?;
    attributes.push(gain(b, norm)?);
    b.node(OPERATOR_DOMAIN, NORM_LINEAR, &[x, &weights, norm], &[&out], attributes);
    Ok(out)
}

/// `group` of `layer`, added to the stream. The input of `down` is gates and values side by side.
fn added(
    b: &mut Builder<'_>,
    layer: usize,
    group: FusedProjection,
    x: &str,
    stream: &str,
) -> Result<String, GraphError> {
    let (weights, out, mut attributes) = projection(b, layer, group)?;
    attributes.push(Attribute::int("gated", i64::from(group == FusedProjection::Down)));
    b.node(OPERATOR_DOMAIN, LINEAR_ADD, &[x, &weights, stream], &[&out], attributes);
    Ok(out)
}

/// Names of the weights and of the output of `group` of `layer`, and the operator's attributes.
fn projection(
    b: &mut Builder<'_>,
    layer: usize,
    group: FusedProjection,
) -> Result<(String, String, Vec<Attribute>), GraphError> {
    let name = group.name(layer);
    let weights = format!("{name}.weights");
    let tensors: Vec<_> = group.modules().iter().map(|module| module.weight(layer)).collect();
    let bits = if b.flavour.precision == Precision::Int8 { Bits::Eight } else { Bits::Four };
    let mut attributes = matrix(b, &weights, &tensors, bits)?;
    attributes.push(Attribute::int("group", group.index(layer) as i64));
    Ok((weights, format!("{name}.out"), attributes))
}

/// Adds the gain of a norm; gives its epsilon attribute.
fn gain(b: &mut Builder<'_>, name: &str) -> Result<Attribute, GraphError> {
    let tensor = b.checkpoint.tensor(name)?;
    b.f32s(name, &tensor.shape, &tensor.data)?;
    Ok(Attribute::float("epsilon", b.config().rms_norm_eps))
}

/// Adds tensors, stacked along their outputs, as one packed matrix.
fn matrix(b: &mut Builder<'_>, name: &str, tensors: &[String], bits: Bits) -> Result<Vec<Attribute>, GraphError> {
    let packed = quantize(b.checkpoint, tensors, bits)?;
    b.bytes(name, &[packed.bytes().len()], packed.bytes())?;
    Ok(describe(&packed))
}

/// Attributes that describe a packed matrix.
fn describe(packed: &Packed) -> Vec<Attribute> {
    let weights = packed.weights();
    vec![
        Attribute::string("format", weights.format().name()),
        Attribute::int("inputs", weights.inputs() as i64),
        Attribute::int("outputs", weights.outputs() as i64),
    ]
}

//! Decoder with quantised weights: five nodes a layer, and one more for each norm after a block. Norms before a block,
//! activations, residuals and adapters are fused into the linear operators.

use slm_kernels::Packed;

use super::{
    EMBEDDING, GraphError, LINEAR_ADD, NORM_ADD, NORM_LINEAR, OPERATOR_DOMAIN, Precision,
    builder::Builder,
    common::{
        activation_name, by_layer, capped, layer_input, layer_scaled, logits, mixed, norm_gain, scaled, select_wanted,
        split_layer_inputs,
    },
    encoder,
    experts::Around,
    formats::formats_of,
};
use crate::{
    architecture::{Architecture, BlockNorms, LayerInput, LayerInputs, Name, Norm, NormKind, Projection, Residual},
    onnx::Attribute,
    quantize::{Bits, quantize},
};

/// Residual stream, and the attributes of the embedding table for a tied head.
pub(super) struct Stream {
    total: String,
    table: Vec<Attribute>,
}

/// Embeds `input_ids`.
pub(super) fn embedding(b: &mut Builder<'_>) -> Result<Stream, GraphError> {
    let architecture = b.architecture();
    let table = matrix(b, "embedding", &[architecture.embedding.weight()], Bits::Eight)?;
    b.node(OPERATOR_DOMAIN, EMBEDDING, &["input_ids", "embedding"], &["hidden"], table.clone());
    let total = scaled(b, "hidden", architecture.embedding_scale)?;
    let total = encoder::embedded(b, total)?;
    if let Some(inputs) = &architecture.layer_inputs {
        layer_inputs(b, inputs, &total)?;
    }
    Ok(Stream { total, table })
}

/// The own inputs of all layers, made of the embedded tokens `x`. The factor of the sum is in its parts, and the square of
/// that of the projection in the norm's epsilon.
fn layer_inputs(b: &mut Builder<'_>, inputs: &LayerInputs, x: &str) -> Result<(), GraphError> {
    let table = matrix(b, "inputs.embedding", &[inputs.embedding.weight()], bits(b))?;
    b.node(OPERATOR_DOMAIN, EMBEDDING, &["input_ids", "inputs.embedding"], &["inputs.embedded"], table);
    let embedded = scaled(b, "inputs.embedded", inputs.embedding_scale * inputs.scale)?;
    let projected = normed(b, b.architecture().layers.len(), Projection::LayerInputs, x, None)?;
    let [projected, embedded] =
        [by_layer(b, &projected, inputs.size, false)?, by_layer(b, &embedded, inputs.size, false)?];
    let epsilon = inputs.norm.epsilon / inputs.projection_scale.powi(2);
    let of = Norm { epsilon, ..inputs.norm.clone() };
    let mut attributes = vec![Attribute::float("scale", 1.0)];
    let [gain, bias] = norm(b, &Name::new("", ""), Some(&of), inputs.scale, &mut attributes)?;
    b.node(OPERATOR_DOMAIN, NORM_ADD, &[&projected, &embedded, &gain, &bias], &["inputs.sum"], attributes);
    let all = by_layer(b, "inputs.sum", inputs.size, true)?;
    split_layer_inputs(b, &all);
    Ok(())
}

/// Adds one layer after `stream`.
pub(super) fn layer(b: &mut Builder<'_>, layer: usize, stream: Stream) -> Result<Stream, GraphError> {
    let Stream { total, table } = stream;
    let total = blocks(b, layer, total)?;
    let total = match &b.architecture().layers[layer].input {
        Some(input) => take_input(b, layer, input, &total)?,
        None => total,
    };
    Ok(Stream { total: layer_scaled(b, layer, &total)?, table })
}

/// Adds what `layer` makes of its own input to the stream.
fn take_input(b: &mut Builder<'_>, layer: usize, input: &LayerInput, stream: &str) -> Result<String, GraphError> {
    let gate = normed(b, layer, Projection::InputGate, stream, None)?;
    let gated = format!("layers.{layer}.input.gated");
    b.node("", "Concat", &[&gate, &layer_input(layer)], &[&gated], vec![Attribute::int("axis", -1)]);
    let Weights { weights, bias, out, mut attributes } = weights(b, layer, Projection::Input)?;
    attributes.push(Attribute::string("activation", activation_name(input.activation)));
    attributes.push(Attribute::int("gated", 1));
    b.node(OPERATOR_DOMAIN, LINEAR_ADD, &[&gated, &weights, "", &bias], &[&out], attributes);
    norm_added(b, layer, &input.norm, &out, stream)
}

/// Attention and feed-forward block; gives the new stream.
fn blocks(b: &mut Builder<'_>, layer: usize, total: String) -> Result<String, GraphError> {
    match &b.architecture().layers[layer].residual {
        Residual::Sequential { attention: around, feed_forward } => {
            let attended = attend(b, layer, &total, around.pre.as_ref())?;
            let total = added(b, layer, Projection::O, &attended, &total, around)?;
            feed(b, layer, &total, feed_forward)
        }
        Residual::Parallel { norm } => {
            let alone = BlockNorms { pre: None, post: None };
            let attended = attend(b, layer, &total, Some(norm))?;
            if b.architecture().layers[layer].feed_forward.experts.is_some() {
                let around = BlockNorms { pre: Some(norm.clone()), post: None };
                let total = feed(b, layer, &total, &around)?;
                return added(b, layer, Projection::O, &attended, &total, &alone);
            }
            let up = normed(b, layer, Projection::GateUp, &total, Some(norm))?;
            let total = added(b, layer, Projection::O, &attended, &total, &alone)?;
            added(b, layer, Projection::Down, &up, &total, &alone)
        }
        Residual::Normed { attention, feed_forward } => {
            let alone = BlockNorms { pre: None, post: None };
            let prefix = b.architecture().layer_prefix(layer);
            let attended = attend(b, layer, &total, None)?;
            let total = added(b, layer, Projection::O, &attended, &total, &alone)?;
            let total = encoder::normed(b, &prefix, attention, &total)?;
            let up = normed(b, layer, Projection::GateUp, &total, None)?;
            let total = added(b, layer, Projection::Down, &up, &total, &alone)?;
            encoder::normed(b, &prefix, feed_forward, &total)
        }
    }
}

/// The states of all tokens, as `states`.
pub(super) fn states(b: &mut Builder<'_>, stream: &Stream) -> Result<(), GraphError> {
    let last = match &b.architecture().final_norm {
        Some(of) => encoder::normed(b, &Name::new("", ""), of, &stream.total)?,
        None => stream.total.clone(),
    };
    encoder::output(b, &last);
    Ok(())
}

/// Final norm and head over the requested rows, as `logits`.
pub(super) fn head(b: &mut Builder<'_>, stream: Stream) -> Result<(), GraphError> {
    select_wanted(b, &stream.total, "wanted");
    let Architecture { head, final_norm, .. } = b.architecture();
    let (weights, mut attributes) = if head.tied {
        ("embedding", stream.table)
    } else {
        ("head", matrix(b, "head", &[head.name.weight()], Bits::Eight)?)
    };
    let [gain, norm_bias] = norm(b, &Name::new("", ""), final_norm.as_ref(), head.scale, &mut attributes)?;
    let bias = if head.bias { norm_gain(b, &head.name.bias(), head.scale)? } else { String::new() };
    attributes.push(Attribute::int("bias", i64::from(head.bias)));
    let inputs = ["wanted", weights, &gain, &norm_bias, &bias];
    b.node(OPERATOR_DOMAIN, NORM_LINEAR, &inputs, &[logits(head)], attributes);
    Ok(capped(b)?)
}

fn attend(b: &mut Builder<'_>, layer: usize, x: &str, pre: Option<&Norm>) -> Result<String, GraphError> {
    let qkv = normed(b, layer, Projection::Qkv, x, pre)?;
    mixed(b, layer, &qkv)
}

/// The feed-forward block of `layer`, added to the stream.
fn feed(b: &mut Builder<'_>, layer: usize, stream: &str, around: &BlockNorms) -> Result<String, GraphError> {
    let described = &b.architecture().layers[layer];
    let Some(experts) = &described.feed_forward.experts else {
        let up = normed(b, layer, Projection::GateUp, stream, around.pre.as_ref())?;
        return added(b, layer, Projection::Down, &up, stream, around);
    };
    let mut attributes = Vec::new();
    let prefix = b.architecture().layer_prefix(layer);
    let norm = norm(b, &prefix, around.pre.as_ref(), 1.0, &mut attributes)?;
    if let Some(post) = &around.post {
        let inside = Around { residual: "", norm, attributes };
        let out = super::experts::experts(b, layer, experts, stream, inside)?;
        return norm_added(b, layer, post, &out, stream);
    }
    attributes.push(Attribute::float("scale", described.residual_scale));
    super::experts::experts(b, layer, experts, stream, Around { residual: stream, norm, attributes })
}

/// `projection` of `layer` applied to the normed stream.
fn normed(
    b: &mut Builder<'_>,
    layer: usize,
    projection: Projection,
    x: &str,
    pre: Option<&Norm>,
) -> Result<String, GraphError> {
    let Weights { weights, bias, out, mut attributes } = weights(b, layer, projection)?;
    let prefix = b.architecture().layer_prefix(layer);
    let [gain, norm_bias] = norm(b, &prefix, pre, 1.0, &mut attributes)?;
    b.node(OPERATOR_DOMAIN, NORM_LINEAR, &[x, &weights, &gain, &norm_bias, &bias], &[&out], attributes);
    Ok(out)
}

/// `projection` of `layer`, the last of its block, added to the stream.
fn added(
    b: &mut Builder<'_>,
    layer: usize,
    projection: Projection,
    x: &str,
    stream: &str,
    around: &BlockNorms,
) -> Result<String, GraphError> {
    let described = &b.architecture().layers[layer];
    let Weights { weights, bias, out, mut attributes } = weights(b, layer, projection)?;
    if projection == Projection::Down {
        attributes.push(Attribute::string("activation", activation_name(described.feed_forward.activation)));
        attributes.push(Attribute::int("gated", i64::from(described.feed_forward.gated)));
    }
    attributes.push(Attribute::int("residual", i64::from(around.post.is_none())));
    let Some(post) = &around.post else {
        attributes.push(Attribute::float("scale", described.residual_scale));
        b.node(OPERATOR_DOMAIN, LINEAR_ADD, &[x, &weights, stream, &bias], &[&out], attributes);
        return Ok(out);
    };
    b.node(OPERATOR_DOMAIN, LINEAR_ADD, &[x, &weights, "", &bias], &[&out], attributes);
    norm_added(b, layer, post, &out, stream)
}

/// The norm of a block's result, added to the stream.
fn norm_added(b: &mut Builder<'_>, layer: usize, post: &Norm, out: &str, stream: &str) -> Result<String, GraphError> {
    let mut attributes = vec![Attribute::float("scale", b.architecture().layers[layer].residual_scale)];
    let prefix = b.architecture().layer_prefix(layer);
    let [gain, norm_bias] = norm(b, &prefix, Some(post), 1.0, &mut attributes)?;
    let total = format!("{out}.added");
    b.node(OPERATOR_DOMAIN, NORM_ADD, &[out, stream, &gain, &norm_bias], &[&total], attributes);
    Ok(total)
}

/// Adds the tensors of a norm, multiplied by `scale`, and its attributes; gives the names of its gain and bias, empty
/// where there is none.
fn norm(
    b: &mut Builder<'_>,
    prefix: &Name,
    of: Option<&Norm>,
    scale: f32,
    attributes: &mut Vec<Attribute>,
) -> Result<[String; 2], GraphError> {
    let Some(of) = of else { return Ok([String::new(), String::new()]) };
    let tensors = of.name.within(prefix);
    let kind = match of.kind {
        NormKind::Rms => "rms",
        NormKind::Layer { .. } => "layer",
    };
    attributes.push(Attribute::string("norm", kind));
    attributes.push(Attribute::float("epsilon", of.epsilon));
    let biased = of.kind == (NormKind::Layer { bias: true });
    attributes.push(Attribute::int("norm_bias", i64::from(biased)));
    let gain = norm_gain(b, &tensors.weight(), scale)?;
    let bias = if biased { norm_gain(b, &tensors.bias(), scale)? } else { String::new() };
    Ok([gain, bias])
}

/// Names of the initializers and of the output of a projection, and the operator's attributes.
struct Weights {
    weights: String,
    /// Empty for none.
    bias: String,
    out: String,
    attributes: Vec<Attribute>,
}

/// Width of the weights of linear layers.
fn bits(b: &Builder<'_>) -> Bits {
    if b.flavour.precision == Precision::Int8 { Bits::Eight } else { Bits::Four }
}

fn weights(b: &mut Builder<'_>, layer: usize, projection: Projection) -> Result<Weights, GraphError> {
    let name = super::value_name(projection, layer);
    let weights = format!("{name}.weights");
    let prefix = b.architecture().prefix(layer);
    let linears = b.architecture().fused(layer, projection);
    let tensors: Vec<_> = linears.iter().map(|linear| linear.name.within(&prefix).weight()).collect();
    let mut attributes = matrix(b, &weights, &tensors, bits(b))?;
    attributes.push(Attribute::int("group", projection.index(layer) as i64));
    let bias = match super::bias(b, layer, projection)? {
        Some(bias) => {
            let bias_name = format!("{name}.bias");
            b.f32s(&bias_name, &[bias.len()], &bias)?;
            bias_name
        }
        None => String::new(),
    };
    attributes.push(Attribute::int("bias", i64::from(!bias.is_empty())));
    Ok(Weights { weights, bias, out: format!("{name}.out"), attributes })
}

/// Adds tensors, stacked along their outputs, as one packed matrix.
fn matrix(b: &mut Builder<'_>, name: &str, tensors: &[String], bits: Bits) -> Result<Vec<Attribute>, GraphError> {
    let parts = quantize(b.checkpoint, tensors, bits)?;
    let bytes: Vec<&[u8]> = parts.iter().map(Packed::bytes).collect();
    let bytes = bytes.concat();
    b.bytes(name, &[bytes.len()], &bytes)?;
    let weights = || parts.iter().map(Packed::weights);
    let parts: Vec<_> = weights().map(|weights| (weights.format(), weights.outputs())).collect();
    Ok(vec![
        Attribute::string("formats", &formats_of(&parts)),
        Attribute::int("inputs", weights().next().map_or(0, |weights| weights.inputs()) as i64),
        Attribute::int("outputs", weights().map(|weights| weights.outputs()).sum::<usize>() as i64),
    ])
}

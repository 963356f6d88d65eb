//! Nodes shared by both forms of the decoder.

use std::io;

use super::{ATTENTION, Form, GraphError, OPERATOR_DOMAIN, builder::Builder, encoder::RELATIVE_BIAS, states};
use crate::{
    architecture::{Activation, Attention, Head, KeyValues, Mixer, Norm, QkSpan},
    onnx::{Attribute, ElementType},
};

/// Token mixer of `layer` over the results of the linear layers of its input; gives the name of the result.
pub(super) fn mixed(b: &mut Builder<'_>, layer: usize, x: &str) -> Result<String, GraphError> {
    match &b.architecture().layers[layer].mixer {
        Mixer::Attention(of) => attention(b, layer, of, x),
        Mixer::ShortConvolution(of) => states::short_convolution(b, layer, of, x),
        Mixer::DeltaRule(of) => states::delta_rule(b, layer, of, x),
    }
}

/// Attention of `layer` over its fused queries, keys and values; gives the name of the result.
fn attention(b: &mut Builder<'_>, layer: usize, of: &Attention, qkv: &str) -> Result<String, GraphError> {
    let Attention { heads, kv_heads, head_dim, scale, soft_cap, window, rope, qk_norm, kv, value_norm, gated, .. } = of;
    let out = format!("layers.{layer}.attended");
    let mut attributes = vec![
        Attribute::int("layer", pages_of(b, layer, *kv) as i64),
        Attribute::int("shared", i64::from(matches!(kv, KeyValues::OfLayer(_)))),
        Attribute::int("keys_as_values", i64::from(*kv == KeyValues::KeysAsValues)),
        Attribute::int("heads", *heads as i64),
        Attribute::int("kv_heads", *kv_heads as i64),
        Attribute::int("head_dim", *head_dim as i64),
        Attribute::float("scale", *scale),
    ];
    // The operator counts the token itself as part of its window, as the reference does.
    if let Some(window) = window {
        attributes.push(Attribute::int("window", *window as i64));
    }
    if let Some(epsilon) = value_norm {
        attributes.push(Attribute::float("value_epsilon", *epsilon));
    }
    if let Some(cap) = soft_cap {
        attributes.push(Attribute::float("softcap", *cap));
    }
    if *gated {
        attributes.push(Attribute::int("gated", 1));
    }
    let mut inputs = vec![qkv.to_owned()];
    if let Some(index) = rope {
        attributes.push(Attribute::int("rope", *index as i64));
    }
    if let Some(norms) = qk_norm {
        let prefix = b.architecture().layer_prefix(layer);
        let own = !matches!(kv, KeyValues::OfLayer(_));
        for norm in std::iter::once(&norms.q).chain(own.then_some(&norms.k)) {
            inputs.push(norm_gain(b, &norm.name.within(&prefix).weight(), 1.0)?);
        }
        attributes.push(Attribute::int("qk_norm", 1));
        attributes.push(Attribute::float("epsilon", norms.q.epsilon));
        attributes.push(Attribute::int("norm_span_token", i64::from(norms.span == QkSpan::Token)));
        attributes.push(Attribute::int("norm_after_rotary", i64::from(norms.after_rope)));
    }
    if b.architecture().encoder.as_ref().is_some_and(|encoder| encoder.relative_bias.is_some()) {
        inputs.push(RELATIVE_BIAS.to_owned());
        attributes.push(Attribute::int("bias_positions", b.architecture().context_length as i64));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    b.node(OPERATOR_DOMAIN, ATTENTION, &inputs, &[&out], attributes);
    Ok(out)
}

/// Layer whose pages `layer` uses. Keys and values of whole texts are not needed after their layer: all use the pages of the
/// first.
fn pages_of(b: &Builder<'_>, layer: usize, kv: KeyValues) -> usize {
    match kv {
        _ if b.flavour.form == Form::States => 0,
        KeyValues::OfLayer(source) => source,
        KeyValues::Own | KeyValues::KeysAsValues => layer,
    }
}

/// Adds the gain of a norm, multiplied by `scale`; gives its name.
pub(super) fn norm_gain(b: &mut Builder<'_>, name: &str, scale: f32) -> Result<String, GraphError> {
    let mut tensor = b.checkpoint.tensor(name)?;
    if scale != 1.0 {
        tensor.data.iter_mut().for_each(|gain| *gain *= scale);
    }
    b.floats(name, &tensor.shape, &tensor.data)?;
    Ok(name.to_owned())
}

/// Adds a tensor that is applied to the residual stream, in 32 bits; gives its name.
pub(super) fn stream_tensor(b: &mut Builder<'_>, name: &str) -> Result<String, GraphError> {
    let tensor = b.checkpoint.tensor(name)?;
    b.f32s(name, &tensor.shape, &tensor.data)?;
    Ok(name.to_owned())
}

/// Adds a tensor of the checkpoint; gives its name.
pub(super) fn tensor(b: &mut Builder<'_>, name: &str) -> Result<String, GraphError> {
    norm_gain(b, name, 1.0)
}

/// Operator of RMS norms.
pub(super) fn rms_norm(b: &Builder<'_>) -> &'static str {
    match b.flavour.form {
        Form::Standard => "RMSNormalization",
        Form::Paged | Form::States | Form::Gqa | Form::Delta => "SimplifiedLayerNormalization",
    }
}

/// RMS norm over the last dimension of `x`, queries or keys of `layer`; gives the name of the result.
pub(super) fn qk_normed(b: &mut Builder<'_>, layer: usize, norm: &Norm, x: &str) -> Result<String, GraphError> {
    let gain = norm_gain(b, &norm.name.within(&b.architecture().layer_prefix(layer)).weight(), 1.0)?;
    let out = format!("{x}.normed");
    let attributes =
        vec![Attribute::float("epsilon", norm.epsilon), Attribute::int("axis", -1), Attribute::int("stash_type", 1)];
    b.node("", rms_norm(b), &[x, &gain], &[&out], attributes);
    Ok(out)
}

/// Name of an activation in attributes.
pub(super) fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Gelu => "gelu",
        Activation::ReluSquared => "relu_squared",
    }
}

/// `factor * x` of the residual stream; gives the name of the result, which is `x` for a factor of one.
pub(super) fn scaled(b: &mut Builder<'_>, x: &str, factor: f32) -> io::Result<String> {
    if factor == 1.0 {
        return Ok(x.to_owned());
    }
    let (name, out) = (format!("{x}.factor"), format!("{x}.scaled"));
    b.f32s(&name, &[], &[factor])?;
    b.node("", "Mul", &[x, &name], &[&out], vec![]);
    Ok(out)
}

/// `x` multiplied by the factor after `layer`, if it has one; gives the name of the result.
pub(super) fn layer_scaled(b: &mut Builder<'_>, layer: usize, x: &str) -> Result<String, GraphError> {
    let Some(name) = &b.architecture().layers[layer].output_scale else { return Ok(x.to_owned()) };
    let factor = b.checkpoint.tensor(&name.within(&b.architecture().layer_prefix(layer)).hf)?.data;
    Ok(scaled(b, x, factor.first().copied().unwrap_or(1.0))?)
}

/// Name of the own input of `layer`.
pub(super) fn layer_input(layer: usize) -> String {
    format!("layers.{layer}.input")
}

/// Splits the own inputs of all layers, side by side.
pub(super) fn split_layer_inputs(b: &mut Builder<'_>, all: &str) {
    let names: Vec<String> = (0..b.architecture().layers.len()).map(layer_input).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let attributes = vec![Attribute::int("axis", -1), Attribute::int("num_outputs", names.len() as i64)];
    b.node("", "Split", &[all], &names, attributes);
}

/// Rows of `x` cut into the parts of each layer, `[tokens, layers, size]`, or, `back`, whole again; gives the name of the
/// result.
pub(super) fn by_layer(b: &mut Builder<'_>, x: &str, size: usize, back: bool) -> io::Result<String> {
    let layers = b.architecture().layers.len() as i64;
    let (shape, out) = (format!("{x}.shape"), format!("{x}.reshaped"));
    let shape_values = if back { vec![0, layers * size as i64] } else { vec![0, layers, size as i64] };
    b.i64s(&shape, &shape_values)?;
    b.node("", "Reshape", &[x, &shape], &[&out], vec![]);
    Ok(out)
}

/// `x` in 32 bits, as the residual stream has it: sums of many layers would lose too much in 16 bits, and overflow in some
/// models.
pub(super) fn widened(b: &mut Builder<'_>, x: &str) -> String {
    cast(b, x, "wide", ElementType::F32)
}

/// `x` of the residual stream in the type of activations.
pub(super) fn narrowed(b: &mut Builder<'_>, x: &str) -> String {
    let float = b.float();
    cast(b, x, "narrow", float)
}

fn cast(b: &mut Builder<'_>, x: &str, suffix: &str, to: ElementType) -> String {
    if b.float() == ElementType::F32 {
        return x.to_owned();
    }
    let out = format!("{x}.{suffix}");
    b.node("", "Cast", &[x], &[&out], vec![Attribute::int("to", to as i64)]);
    out
}

/// Gathers rows `logits_indices` of `x`.
pub(super) fn select_wanted(b: &mut Builder<'_>, x: &str, out: &str) {
    b.node("", "Gather", &[x, "logits_indices"], &[out], vec![]);
}

/// Name of the head's result: `logits`, unless [`capped`] follows.
pub(super) fn logits(head: &Head) -> &'static str {
    if head.soft_cap.is_some() { "logits.uncapped" } else { "logits" }
}

/// `logits`, after the soft cap of the head.
pub(super) fn capped(b: &mut Builder<'_>) -> io::Result<()> {
    let head = &b.architecture().head;
    let Some(cap) = head.soft_cap else { return Ok(()) };
    let uncapped = logits(head);
    b.f32s("logits.cap", &[], &[cap])?;
    b.node("", "Div", &[uncapped, "logits.cap"], &["logits.part"], vec![]);
    b.node("", "Tanh", &["logits.part"], &["logits.tanh"], vec![]);
    b.node("", "Mul", &["logits.tanh", "logits.cap"], &["logits"], vec![]);
    Ok(())
}

/// Scores of attention after its soft cap, if there is one; gives their name.
pub(super) fn soft_capped(b: &mut Builder<'_>, attention: &Attention, scores: &str) -> Result<String, GraphError> {
    let Some(cap) = attention.soft_cap else { return Ok(scores.to_owned()) };
    let part = |of: &str| format!("{scores}.{of}");
    b.floats(&part("cap"), &[], &[cap])?;
    b.node("", "Div", &[scores, &part("cap")], &[&part("part")], vec![]);
    b.node("", "Tanh", &[&part("part")], &[&part("tanh")], vec![]);
    b.node("", "Mul", &[&part("tanh"), &part("cap")], &[&part("capped")], vec![]);
    Ok(part("capped"))
}

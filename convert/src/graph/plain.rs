//! Decoder of standard operators. In 32-bit floats and pages, with a `LoraAdd` after each projection, it is the reference
//! for the other precisions; graphs of rows have their own projections and attention in it ([`rows`], [`gqa`]).

use super::{
    Form, GraphError, LORA_ADD, OPERATOR_DOMAIN,
    builder::{Builder, MICROSOFT},
    common::{
        by_layer, capped, layer_input, layer_scaled, logits, mixed, narrowed, rms_norm, scaled, select_wanted,
        split_layer_inputs, stream_tensor, widened,
    },
    delta, encoder,
    experts::Around,
    gqa, rows, standard,
};
use crate::{
    architecture::{Activation, Architecture, LayerInputs, Name, Norm, NormKind, Projection, Residual},
    onnx::Attribute,
};

/// Residual stream, in 32 bits: its total, and a pending update that the next norm adds.
pub(super) struct Stream {
    total: String,
    update: Option<String>,
}

/// Embeds `input_ids`.
pub(super) fn embedding(b: &mut Builder<'_>) -> Result<Stream, GraphError> {
    let architecture = b.architecture();
    let table = b.checkpoint.tensor(&architecture.embedding.weight())?;
    b.floats("embedding", &table.shape, &table.data)?;
    b.node("", "Gather", &["embedding", "input_ids"], &["hidden"], vec![]);
    let hidden = widened(b, "hidden");
    let total = scaled(b, &hidden, architecture.embedding_scale)?;
    let total = encoder::embedded(b, total)?;
    if let Some(inputs) = &architecture.layer_inputs {
        layer_inputs(b, inputs, &total)?;
    }
    Ok(Stream { total, update: None })
}

/// The own inputs of all layers, made of the embedded tokens `x`.
fn layer_inputs(b: &mut Builder<'_>, inputs: &LayerInputs, x: &str) -> Result<(), GraphError> {
    let table = b.checkpoint.tensor(&inputs.embedding.weight())?;
    b.f32s("inputs.embedding", &table.shape, &table.data)?;
    b.node("", "Gather", &["inputs.embedding", "input_ids"], &["inputs.embedded"], vec![]);
    let embedded = scaled(b, "inputs.embedded", inputs.embedding_scale)?;
    let projected = projection(b, b.architecture().layers.len(), Projection::LayerInputs, x)?;
    let projected = scaled(b, &projected, inputs.projection_scale)?;
    let projected = by_layer(b, &projected, inputs.size, false)?;
    let stream = Stream { total: projected, update: None };
    let (normed, _) = norm(b, &Name::new("", ""), &inputs.norm, "inputs", stream)?;
    let normed = by_layer(b, &normed, inputs.size, true)?;
    b.node("", "Add", &[&normed, &embedded], &["inputs.sum"], vec![]);
    let all = scaled(b, "inputs.sum", inputs.scale)?;
    split_layer_inputs(b, &all);
    Ok(())
}

/// Adds one layer after `stream`.
pub(super) fn layer(b: &mut Builder<'_>, layer: usize, stream: Stream) -> Result<Stream, GraphError> {
    let described = &b.architecture().layers[layer];
    let stream = blocks(b, layer, stream)?;
    let stream = match &described.input {
        Some(input) => {
            let x = total(b, &format!("layers.{layer}.blocks"), stream);
            let gate = projection(b, layer, Projection::InputGate, &x)?;
            let (active, gated) = (format!("layers.{layer}.input.active"), format!("layers.{layer}.input.gated"));
            activation(b, input.activation, &gate, &active);
            b.node("", "Mul", &[&active, &layer_input(layer)], &[&gated], vec![]);
            let result = projection(b, layer, Projection::Input, &gated)?;
            added(b, layer, Some(&input.norm), x, result)?
        }
        None => stream,
    };
    if described.output_scale.is_none() {
        return Ok(stream);
    }
    let total = total(b, &format!("layers.{layer}.out"), stream);
    Ok(Stream { total: layer_scaled(b, layer, &total)?, update: None })
}

/// Attention and feed-forward block.
fn blocks(b: &mut Builder<'_>, layer: usize, stream: Stream) -> Result<Stream, GraphError> {
    match &b.architecture().layers[layer].residual {
        Residual::Sequential { attention, feed_forward } => {
            let (x, total) = pre_norm(b, layer, attention.pre.as_ref(), "attention", stream)?;
            let result = attend(b, layer, &x)?;
            let stream = added(b, layer, attention.post.as_ref(), total, result)?;
            let (x, total) = pre_norm(b, layer, feed_forward.pre.as_ref(), "feed_forward", stream)?;
            let result = feed(b, layer, &x)?;
            added(b, layer, feed_forward.post.as_ref(), total, result)
        }
        Residual::Parallel { norm } => {
            let (x, total) = pre_norm(b, layer, Some(norm), "attention", stream)?;
            let (attended, fed) = (attend(b, layer, &x)?, feed(b, layer, &x)?);
            let both = format!("layers.{layer}.both");
            b.node("", "Add", &[&attended, &fed], &[&both], vec![]);
            added(b, layer, None, total, both)
        }
        Residual::Normed { attention, feed_forward } => {
            let total = total(b, &format!("layers.{layer}.begin"), stream);
            let result = attend(b, layer, &total)?;
            let total = normed_sum(b, layer, attention, "attention", total, result)?;
            let result = feed(b, layer, &total)?;
            let total = normed_sum(b, layer, feed_forward, "feed_forward", total, result)?;
            Ok(Stream { total, update: None })
        }
    }
}

/// Norm of the stream with the result of a block; gives its name.
fn normed_sum(
    b: &mut Builder<'_>,
    layer: usize,
    of: &Norm,
    block: &str,
    total: String,
    result: String,
) -> Result<String, GraphError> {
    let prefix = b.architecture().layer_prefix(layer);
    let stream = Stream { total, update: Some(result) };
    Ok(norm(b, &prefix, of, &format!("layers.{layer}.{block}"), stream)?.0)
}

/// The states of all tokens, as `states`.
pub(super) fn states(b: &mut Builder<'_>, stream: Stream) -> Result<(), GraphError> {
    let last = match &b.architecture().final_norm {
        Some(of) => norm(b, &Name::new("", ""), of, "final", stream)?.0,
        None => total(b, "final", stream),
    };
    encoder::output(b, &last);
    Ok(())
}

/// Final norm and head over the requested rows, as `logits`.
pub(super) fn head(b: &mut Builder<'_>, stream: Stream) -> Result<(), GraphError> {
    let Architecture { final_norm, head, hidden_size, vocab_size, .. } = b.architecture();
    let normed = match final_norm {
        Some(of) => norm(b, &Name::new("", ""), of, "final", stream)?.0,
        None => total(b, "final", stream),
    };
    let normed = scaled(b, &normed, head.scale)?;
    if !b.flavour.is_paged() {
        return rows::head(b, &normed);
    }
    select_wanted(b, &normed, "wanted");
    let weight = b.checkpoint.tensor(&head.name.weight())?.data;
    b.f32s("head", &[*hidden_size, *vocab_size], &transposed(&weight, *hidden_size))?;
    let (out, plain) = (logits(head), if head.bias { "logits.plain" } else { logits(head) });
    b.node("", "MatMul", &["wanted", "head"], &[plain], vec![]);
    if head.bias {
        let mut bias = b.checkpoint.tensor(&head.name.bias())?;
        bias.data.iter_mut().for_each(|bias| *bias *= head.scale);
        b.f32s("head.bias", &bias.shape, &bias.data)?;
        b.node("", "Add", &[plain, "head.bias"], &[out], vec![]);
    }
    Ok(capped(b)?)
}

fn attend(b: &mut Builder<'_>, layer: usize, x: &str) -> Result<String, GraphError> {
    let qkv = projection(b, layer, Projection::Qkv, x)?;
    let attended = match b.flavour.form {
        Form::Paged | Form::States => mixed(b, layer, &qkv)?,
        Form::Gqa => gqa::attention(b, layer, &qkv)?,
        Form::Standard => standard::attention(b, layer, &qkv)?,
        Form::Delta => delta::attention(b, layer, &qkv)?,
    };
    projection(b, layer, Projection::O, &attended)
}

fn feed(b: &mut Builder<'_>, layer: usize, x: &str) -> Result<String, GraphError> {
    if let Some(experts) = &b.architecture().layers[layer].feed_forward.experts {
        return super::experts::experts(b, layer, experts, x, Around::default());
    }
    let up = projection(b, layer, Projection::GateUp, x)?;
    let activated = activated(b, layer, &up);
    projection(b, layer, Projection::Down, &activated)
}

/// The normed stream, or the stream itself where there is no norm, and the new total.
fn pre_norm(
    b: &mut Builder<'_>,
    layer: usize,
    of: Option<&Norm>,
    block: &str,
    stream: Stream,
) -> Result<(String, String), GraphError> {
    let out = format!("layers.{layer}.{block}");
    match of {
        Some(of) => {
            let prefix = b.architecture().layer_prefix(layer);
            let (normed, total) = norm(b, &prefix, of, &out, stream)?;
            Ok((narrowed(b, &normed), total))
        }
        None => {
            let total = total(b, &out, stream);
            Ok((narrowed(b, &total), total))
        }
    }
}

/// The stream with the result of a block, after its norm, as a pending update.
fn added(
    b: &mut Builder<'_>,
    layer: usize,
    post: Option<&Norm>,
    total: String,
    result: String,
) -> Result<Stream, GraphError> {
    let result = widened(b, &result);
    let result = match post {
        Some(post) => {
            let stream = Stream { total: result.clone(), update: None };
            let prefix = b.architecture().layer_prefix(layer);
            norm(b, &prefix, post, &result, stream)?.0
        }
        None => result,
    };
    let update = scaled(b, &result, b.architecture().layers[layer].residual_scale)?;
    Ok(Stream { total, update: Some(update) })
}

/// Total of the stream, with its pending update.
fn total(b: &mut Builder<'_>, name: &str, stream: Stream) -> String {
    let Stream { total, update } = stream;
    let Some(update) = update else { return total };
    let sum = format!("{name}.total");
    b.node("", "Add", &[&total, &update], &[&sum], vec![]);
    sum
}

/// Norm of the stream; gives the names of the normed values and of the new total.
fn norm(
    b: &mut Builder<'_>,
    prefix: &Name,
    of: &Norm,
    name: &str,
    stream: Stream,
) -> Result<(String, String), GraphError> {
    let tensors = of.name.within(prefix);
    let gain = stream_tensor(b, &tensors.weight())?;
    let out = format!("{name}.normed");
    let epsilon = || Attribute::float("epsilon", of.epsilon);
    let attributes = || vec![epsilon(), Attribute::int("axis", -1), Attribute::int("stash_type", 1)];
    let skips = matches!(b.flavour.form, Form::Paged | Form::States | Form::Gqa);
    match (of.kind, stream) {
        (NormKind::Rms, Stream { total, update: Some(update) }) if skips => {
            let sum = format!("{name}.total");
            let skip = "SkipSimplifiedLayerNormalization";
            b.node(MICROSOFT, skip, &[&total, &update, &gain], &[&out, "", "", &sum], vec![epsilon()]);
            Ok((out, sum))
        }
        (NormKind::Rms, stream) => {
            let total = total(b, name, stream);
            b.node("", rms_norm(b), &[&total, &gain], &[&out], attributes());
            Ok((out, total))
        }
        (NormKind::Layer { bias }, stream) => {
            let total = total(b, name, stream);
            let bias = if bias { stream_tensor(b, &tensors.bias())? } else { String::new() };
            b.node("", "LayerNormalization", &[&total, &gain, &bias], &[&out], attributes());
            Ok((out, total))
        }
    }
}

/// `projection` of `layer` applied to `x`; gives the name of the result.
fn projection(b: &mut Builder<'_>, layer: usize, projection: Projection, x: &str) -> Result<String, GraphError> {
    if !b.flavour.is_paged() {
        return rows::projection(b, layer, projection, x);
    }
    let linears = b.architecture().fused(layer, projection);
    let k = linears.first().map_or(0, |linear| linear.inputs);
    let n: usize = linears.iter().map(|linear| linear.outputs).sum();
    let prefix = b.architecture().prefix(layer);
    let mut weight = Vec::with_capacity(n * k);
    for linear in linears {
        weight.extend_from_slice(&b.checkpoint.tensor(&linear.name.within(&prefix).weight())?.data);
    }
    let name = super::value_name(projection, layer);
    let (weight_name, plain, out) = (format!("{name}.weight"), format!("{name}.base"), format!("{name}.out"));
    b.f32s(&weight_name, &[k, n], &transposed(&weight, k))?;
    b.node("", "MatMul", &[x, &weight_name], &[&plain], vec![]);
    let plain = match super::bias(b, layer, projection)? {
        Some(bias) => {
            let (bias_name, biased) = (format!("{name}.bias"), format!("{name}.biased"));
            b.f32s(&bias_name, &[n], &bias)?;
            b.node("", "Add", &[&plain, &bias_name], &[&biased], vec![]);
            biased
        }
        None => plain,
    };
    let attributes = vec![Attribute::int("group", projection.index(layer) as i64)];
    b.node(OPERATOR_DOMAIN, LORA_ADD, &[&plain, x], &[&out], attributes);
    Ok(out)
}

/// Activation of the first feed-forward projection, times its second half if it is gated.
fn activated(b: &mut Builder<'_>, layer: usize, up: &str) -> String {
    let feed_forward = &b.architecture().layers[layer].feed_forward;
    let name = |part: &str| format!("layers.{layer}.{part}");
    let (gate, value, active, out) = (name("gate"), name("up"), name("active"), name("activated"));
    if !feed_forward.gated {
        activation(b, feed_forward.activation, up, &out);
        return out;
    }
    let split = vec![Attribute::int("axis", -1), Attribute::int("num_outputs", 2)];
    b.node("", "Split", &[up], &[&gate, &value], split);
    activation(b, feed_forward.activation, &gate, &active);
    b.node("", "Mul", &[&active, &value], &[&out], vec![]);
    out
}

fn activation(b: &mut Builder<'_>, activation: Activation, x: &str, out: &str) {
    let gelu = |b: &mut Builder<'_>, approximate: &str| {
        b.node("", "Gelu", &[x], &[out], vec![Attribute::string("approximate", approximate)]);
    };
    match activation {
        Activation::Silu if matches!(b.flavour.form, Form::Standard | Form::Delta) => {
            let sigmoid = format!("{out}.sigmoid");
            b.node("", "Sigmoid", &[x], &[&sigmoid], vec![]);
            b.node("", "Mul", &[x, &sigmoid], &[out], vec![]);
        }
        // QuickGelu(x) = x * sigmoid(alpha * x), so alpha 1 is SiLU in one pass.
        Activation::Silu => b.node(MICROSOFT, "QuickGelu", &[x], &[out], vec![Attribute::float("alpha", 1.0)]),
        Activation::GeluTanh => gelu(b, "tanh"),
        Activation::Gelu => gelu(b, "none"),
        Activation::ReluSquared => {
            let relu = format!("{out}.relu");
            b.node("", "Relu", &[x], &[&relu], vec![]);
            b.node("", "Mul", &[&relu, &relu], &[out], vec![]);
        }
    }
}

/// Transposes `[n, k]` to `[k, n]`, in tiles that fit the first-level cache.
pub(super) fn transposed(weight: &[f32], k: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let n = weight.len() / k;
    let mut out = vec![0.0; weight.len()];
    for n0 in (0..n).step_by(TILE) {
        for k0 in (0..k).step_by(TILE) {
            for row in n0..(n0 + TILE).min(n) {
                for column in k0..(k0 + TILE).min(k) {
                    out[column * n + row] = weight[row * k + column];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn transposing_twice_changes_nothing() {
        let data: Vec<f32> = (0..33 * 70).map(|i| i as f32).collect();
        let once = super::transposed(&data, 70);
        assert_eq!(once[33], 1.0);
        assert_eq!(super::transposed(&once, 33), data);
    }
}

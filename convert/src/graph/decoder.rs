//! The decoder itself: embedding, layers, head.

use super::{
    GraphError, Group,
    builder::{Builder, MICROSOFT},
    linear,
};
use crate::onnx::{Attribute, Dim, ElementType, ValueInfo};

/// Adds the whole decoder to `b`.
pub(super) fn decoder(b: &mut Builder<'_>, progress: &mut dyn FnMut(usize, usize)) -> Result<(), GraphError> {
    let layers = b.config().layers;
    declare(b);
    rotary_tables(b)?;
    linear::embedding(b, "hidden")?;
    let mut stream = Residual { total: "hidden".into(), update: None };
    for layer in 0..layers {
        stream = decoder_layer(b, layer, stream)?;
        progress(layer + 1, layers);
    }
    let (normed, _) = norm(b, "model.norm.weight", "final", &stream)?;
    select_wanted(b, &normed, "wanted")?;
    linear::head(b, "wanted")
}

/// The residual stream: its total so far, and an update that the next norm adds in passing.
struct Residual {
    total: String,
    update: Option<String>,
}

fn decoder_layer(b: &mut Builder<'_>, layer: usize, stream: Residual) -> Result<Residual, GraphError> {
    let prefix = format!("model.layers.{layer}");
    let name = format!("layers.{layer}");

    let (x, total) = norm(b, &format!("{prefix}.input_layernorm.weight"), &format!("{name}.attention"), &stream)?;
    let qkv = linear::projection(b, layer, Group::Qkv, &x)?;
    let attended = attention(b, layer, &qkv);
    let update = linear::projection(b, layer, Group::O, &attended)?;

    let stream = Residual { total, update: Some(update) };
    let weight = format!("{prefix}.post_attention_layernorm.weight");
    let (x, total) = norm(b, &weight, &format!("{name}.feed_forward"), &stream)?;
    let gate_up = linear::projection(b, layer, Group::GateUp, &x)?;
    let activated = gated_silu(b, layer, &gate_up);
    let update = linear::projection(b, layer, Group::Down, &activated)?;
    Ok(Residual { total, update: Some(update) })
}

/// Root-mean-square norm of the stream; gives the names of the normed values and of the new total.
fn norm(b: &mut Builder<'_>, weight: &str, name: &str, stream: &Residual) -> Result<(String, String), GraphError> {
    let scale = b.checkpoint.tensor(weight)?;
    b.f32s(weight, &scale.shape, &scale.data)?;
    let epsilon = b.config().rms_norm_eps;
    let out = format!("{name}.normed");
    match &stream.update {
        None => {
            let attributes =
                vec![Attribute::float("epsilon", epsilon), Attribute::int("axis", -1), Attribute::int("stash_type", 1)];
            b.node("", "SimplifiedLayerNormalization", &[&stream.total, weight], &[&out], attributes);
            Ok((out, stream.total.clone()))
        }
        Some(update) => {
            let total = format!("{name}.total");
            b.node(
                MICROSOFT,
                "SkipSimplifiedLayerNormalization",
                &[&stream.total, update, weight],
                &[&out, "", "", &total],
                vec![Attribute::float("epsilon", epsilon)],
            );
            Ok((out, total))
        }
    }
}

fn attention(b: &mut Builder<'_>, layer: usize, qkv: &str) -> String {
    let config = b.config();
    let out = format!("layers.{layer}.attended");
    let [past_key, past_value, present_key, present_value] =
        ["past_key", "past_value", "present_key", "present_value"].map(|name| format!("{name}.{layer}"));
    let mut attributes = vec![
        Attribute::int("num_heads", config.heads as i64),
        Attribute::int("kv_num_heads", config.kv_heads as i64),
        Attribute::int("do_rotary", 1),
        Attribute::int("rotary_interleaved", 0),
    ];
    // The operator counts the token itself in its window, as the reference does.
    if let Some(window) = config.sliding_window {
        attributes.push(Attribute::int("local_window_size", window as i64));
    }
    let inputs =
        [qkv, "", "", &past_key, &past_value, "seqlens_k", "total_sequence_length", "rotary.cos", "rotary.sin"];
    b.node(MICROSOFT, "GroupQueryAttention", &inputs, &[&out, &present_key, &present_value], attributes);
    out
}

/// `silu(gate) * up` of the fused projection.
fn gated_silu(b: &mut Builder<'_>, layer: usize, gate_up: &str) -> String {
    let name = |part: &str| format!("layers.{layer}.{part}");
    let (gate, up, silu, out) = (name("gate"), name("up"), name("silu"), name("activated"));
    let split = vec![Attribute::int("axis", -1), Attribute::int("num_outputs", 2)];
    b.node("", "Split", &[gate_up], &[&gate, &up], split);
    // QuickGelu(x) = x * sigmoid(alpha * x), so alpha 1 is SiLU in one pass.
    b.node(MICROSOFT, "QuickGelu", &[&gate], &[&silu], vec![Attribute::float("alpha", 1.0)]);
    b.node("", "Mul", &[&silu, &up], &[&out], vec![]);
    out
}

/// Rows `logits_indices` of `x` with batch and sequence flattened.
fn select_wanted(b: &mut Builder<'_>, x: &str, out: &str) -> Result<(), GraphError> {
    let hidden = b.config().hidden_size as i64;
    b.i64s("flat.shape", &[2], &[-1, hidden])?;
    b.node("", "Reshape", &[x, "flat.shape"], &["flat"], vec![]);
    b.node("", "Gather", &["flat", "logits_indices"], &[out], vec![]);
    Ok(())
}

/// `cos` and `sin` of every position and frequency, `[context, head_dim / 2]`.
fn rotary_tables(b: &mut Builder<'_>) -> Result<(), GraphError> {
    let (context, config) = (b.flavour.context_length, b.config());
    let frequencies = config.rope.inv_freq(config.head_dim);
    let angles = || (0..context).flat_map(|p| frequencies.iter().map(move |&f| p as f32 * f));
    let shape = [context, frequencies.len()];
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles().map(|a| (a.cos(), a.sin())).unzip();
    b.f32s("rotary.cos", &shape, &cos)?;
    b.f32s("rotary.sin", &shape, &sin)?;
    Ok(())
}

fn declare(b: &mut Builder<'_>) {
    use Dim::{Fixed, Symbol};
    let config = b.config();
    let batch = Symbol("batch");
    b.input(ValueInfo::tensor("input_ids", ElementType::I64, &[batch, Symbol("sequence")]));
    b.input(ValueInfo::tensor("rows", ElementType::I32, &[batch]));
    b.input(ValueInfo::tensor("seqlens_k", ElementType::I32, &[batch]));
    b.input(ValueInfo::tensor("total_sequence_length", ElementType::I32, &[]));
    b.input(ValueInfo::tensor("logits_indices", ElementType::I64, &[Symbol("wanted")]));
    b.output(ValueInfo::tensor("logits", ElementType::F32, &[Symbol("wanted"), Fixed(config.vocab_size)]));
    let cache = [batch, Fixed(config.kv_heads), Symbol("capacity"), Fixed(config.head_dim)];
    for layer in 0..config.layers {
        for part in ["key", "value"] {
            b.input(ValueInfo::tensor(format!("past_{part}.{layer}"), ElementType::F32, &cache));
            b.output(ValueInfo::tensor(format!("present_{part}.{layer}"), ElementType::F32, &cache));
        }
    }
}

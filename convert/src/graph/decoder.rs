//! The decoder itself: inputs and outputs, and what is the same at every precision.

use super::{
    GraphError, Precision,
    builder::{Builder, MICROSOFT},
    fused, plain,
};
use crate::onnx::{Attribute, Dim, ElementType, ValueInfo};

/// Adds the whole decoder to `b`.
pub(super) fn decoder(b: &mut Builder<'_>, progress: &mut dyn FnMut(usize, usize)) -> Result<(), GraphError> {
    let layers = b.config().layers;
    declare(b);
    rotary_tables(b)?;
    match b.flavour.precision {
        Precision::F32 => {
            let mut stream = plain::embedding(b)?;
            for layer in 0..layers {
                stream = plain::layer(b, layer, stream)?;
                progress(layer + 1, layers);
            }
            plain::head(b, &stream)
        }
        Precision::Int4 | Precision::Int8 => {
            let mut stream = fused::embedding(b)?;
            for layer in 0..layers {
                stream = fused::layer(b, layer, stream)?;
                progress(layer + 1, layers);
            }
            fused::head(b, stream)
        }
    }
}

/// Attention over the fused projection, with the cache; gives the name of the result.
pub(super) fn attention(b: &mut Builder<'_>, layer: usize, qkv: &str) -> String {
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

/// Rows `logits_indices` of `x` with batch and sequence flattened.
pub(super) fn select_wanted(b: &mut Builder<'_>, x: &str, out: &str) -> Result<(), GraphError> {
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

//! Nodes shared by both forms of the decoder.

use super::{ATTENTION, OPERATOR_DOMAIN, builder::Builder};
use crate::onnx::Attribute;

/// Attention over the fused QKV projection; gives the name of the result.
pub(super) fn attention(b: &mut Builder<'_>, layer: usize, qkv: &str) -> String {
    let config = b.config();
    let out = format!("layers.{layer}.attended");
    let mut attributes = vec![
        Attribute::int("layer", layer as i64),
        Attribute::int("heads", config.heads as i64),
        Attribute::int("kv_heads", config.kv_heads as i64),
        Attribute::int("head_dim", config.head_dim as i64),
        Attribute::float("scale", 1.0 / (config.head_dim as f32).sqrt()),
    ];
    // The operator counts the token itself as part of its window, as the reference does.
    if let Some(window) = config.sliding_window {
        attributes.push(Attribute::int("window", window as i64));
    }
    b.node(OPERATOR_DOMAIN, ATTENTION, &[qkv, "rotary.cos", "rotary.sin"], &[&out], attributes);
    out
}

/// Gathers rows `logits_indices` of `x`.
pub(super) fn select_wanted(b: &mut Builder<'_>, x: &str, out: &str) {
    b.node("", "Gather", &[x, "logits_indices"], &[out], vec![]);
}

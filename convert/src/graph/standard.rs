//! Attention of the form `Standard`: `TensorScatter` writes keys and values to their row, and `Attention` takes all of them.

use super::{
    Form, GraphError,
    builder::Builder,
    heads::{heads, side_by_side},
    masks::mask_name,
    rows::{attention_of, cache_names},
};
use crate::onnx::Attribute;

/// Attention of `layer` over its fused queries, keys and values; gives the name of the result.
pub(super) fn attention(b: &mut Builder<'_>, layer: usize, qkv: &str) -> Result<String, GraphError> {
    let attention = attention_of(b.architecture(), layer)?;
    let [q, k, v] = heads(b, layer, qkv)?;
    let [keys, values] = cache_names(Form::Standard, layer);
    for (new, [past, present]) in [(&k, &keys), (&v, &values)] {
        let attributes = vec![Attribute::int("axis", -2), Attribute::string("mode", "linear")];
        b.node("", "TensorScatter", &[past, new, "past"], &[present], attributes);
    }
    let mut attributes = vec![Attribute::int("is_causal", 0), Attribute::float("scale", attention.scale)];
    if let Some(cap) = attention.soft_cap {
        attributes.push(Attribute::float("softcap", cap));
    }
    let out = format!("layers.{layer}.attended.heads");
    b.node("", "Attention", &[&q, &keys[1], &values[1], &mask_name(attention)], &[&out], attributes);
    side_by_side(b, layer, &out)
}

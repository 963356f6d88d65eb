//! Attention of the form `Standard`: `TensorScatter` writes keys and values to their row, and `Attention` takes all of them.
//! Where scores have a soft cap, which TensorRT-RTX's `Attention` does not take, it is in parts.

use super::{
    Form, GraphError,
    builder::Builder,
    common::soft_capped,
    heads::{heads, side_by_side},
    masks::{UNSEEN, group, mask_name},
    rows::{attention_of, cache_names},
};
use crate::{architecture::Attention, onnx::Attribute};

/// Attention of `layer` over its fused queries, keys and values; gives the name of the result.
pub(super) fn attention(b: &mut Builder<'_>, layer: usize, qkv: &str) -> Result<String, GraphError> {
    let attention = attention_of(b.architecture(), layer)?;
    let [q, k, v] = heads(b, layer, qkv)?;
    let [keys, values] = cache_names(Form::Standard, layer);
    for (new, [past, present]) in [(&k, &keys), (&v, &values)] {
        let attributes = vec![Attribute::int("axis", -2), Attribute::string("mode", "linear")];
        b.node("", "TensorScatter", &[past, new, "past"], &[present], attributes);
    }
    let out = format!("layers.{layer}.attended.heads");
    if attention.soft_cap.is_some() {
        in_parts(b, layer, [&q, &keys[1], &values[1]], &out)?;
    } else {
        let attributes = vec![Attribute::int("is_causal", 0), Attribute::float("scale", attention.scale)];
        b.node("", "Attention", &[&q, &keys[1], &values[1], &mask_name(attention)], &[&out], attributes);
    }
    side_by_side(b, layer, &out)
}

/// Attention with a soft cap. Queries of the heads that share keys are beside one another, `[rows, kv_heads, group, tokens,
/// head_dim]`, so that keys are never repeated.
fn in_parts(b: &mut Builder<'_>, layer: usize, [q, keys, values]: [&str; 3], out: &str) -> Result<(), GraphError> {
    let attention = attention_of(b.architecture(), layer)?;
    let Attention { heads: count, kv_heads, scale, head_dim, .. } = attention;
    let name = |part: &str| format!("layers.{layer}.{part}");
    b.floats(&name("scale"), &[], &[*scale])?;
    b.floats(&name("unseen"), &[], &[UNSEEN])?;
    b.i64s(&name("group"), &[2])?;
    b.i64s(&name("group.of.mask"), &[1])?;
    b.i64s(&name("groups"), &[0, *kv_heads as i64, group(attention) as i64, -1, *head_dim as i64])?;
    b.i64s(&name("heads"), &[0, *count as i64, -1, *head_dim as i64])?;
    b.node("", "Mul", &[q, &name("scale")], &[&name("q.scaled")], vec![]);
    b.node("", "Reshape", &[&name("q.scaled"), &name("groups")], &[&name("q.grouped")], vec![]);
    b.node("", "Transpose", &[keys], &[&name("k.columns")], vec![Attribute::ints("perm", &[0, 1, 3, 2])]);
    b.node("", "Unsqueeze", &[&name("k.columns"), &name("group")], &[&name("k.grouped")], vec![]);
    b.node("", "Unsqueeze", &[values, &name("group")], &[&name("v.grouped")], vec![]);
    b.node("", "MatMul", &[&name("q.grouped"), &name("k.grouped")], &[&name("products")], vec![]);
    let scores = soft_capped(b, attention, &name("products"))?;
    b.node("", "Unsqueeze", &[&mask_name(attention), &name("group.of.mask")], &[&name("seen")], vec![]);
    b.node("", "Where", &[&name("seen"), &scores, &name("unseen")], &[&name("scores")], vec![]);
    b.node("", "Softmax", &[&name("scores")], &[&name("weights")], vec![Attribute::int("axis", -1)]);
    b.node("", "MatMul", &[&name("weights"), &name("v.grouped")], &[&name("grouped")], vec![]);
    b.node("", "Reshape", &[&name("grouped"), &name("heads")], &[out], vec![]);
    Ok(())
}

//! Attention of the form `Delta`: scores with earlier keys and with new ones apart, one softmax over both, and keys and
//! values of the new tokens as outputs.
//!
//! Queries of the heads that share keys are under one another, `[rows, kv_heads, group * tokens, head_dim]`, so that keys are
//! never repeated.

use super::{
    Form, GraphError,
    builder::Builder,
    common::soft_capped,
    heads::{heads, side_by_side},
    masks::mask_names,
    rows::{attention_of, cache_names},
};
use crate::{architecture::Attention, onnx::Attribute};

/// Attention of `layer` over its fused queries, keys and values; gives the name of the result.
pub(super) fn attention(b: &mut Builder<'_>, layer: usize, qkv: &str) -> Result<String, GraphError> {
    let attention = attention_of(b.architecture(), layer)?;
    let Attention { heads: count, kv_heads, scale, .. } = attention;
    let [q, k, v] = heads(b, layer, qkv)?;
    let [[past_keys, new_keys], [past_values, new_values]] = cache_names(Form::Delta, layer);
    b.node("", "Identity", &[&k], &[&new_keys], vec![]);
    b.node("", "Identity", &[&v], &[&new_values], vec![]);
    let name = |part: &str| format!("layers.{layer}.{part}");
    let head_dim = attention.head_dim as i64;
    b.floats(&name("scale"), &[], &[*scale])?;
    b.i64s(&name("groups"), &[0, *kv_heads as i64, -1, head_dim])?;
    b.i64s(&name("heads"), &[0, *count as i64, -1, head_dim])?;
    b.node("", "Mul", &[&q, &name("scale")], &[&name("q.scaled")], vec![]);
    b.node("", "Reshape", &[&name("q.scaled"), &name("groups")], &[&name("q.grouped")], vec![]);
    let mut parts = Vec::new();
    for ((which, keys), mask) in [("past", &past_keys), ("new", &k)].into_iter().zip(mask_names(attention)) {
        let part = |of: &str| name(&format!("{which}.{of}"));
        b.node("", "Transpose", &[keys], &[&part("columns")], vec![Attribute::ints("perm", &[0, 1, 3, 2])]);
        b.node("", "MatMul", &[&name("q.grouped"), &part("columns")], &[&part("products")], vec![]);
        let scores = soft_capped(b, attention, &part("products"))?;
        b.node("", "Add", &[&scores, &mask], &[&part("scores")], vec![]);
        parts.push(part("scores"));
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    b.node("", "Concat", &parts, &[&name("scores")], vec![Attribute::int("axis", -1)]);
    b.node("", "Softmax", &[&name("scores")], &[&name("weights")], vec![Attribute::int("axis", -1)]);
    let ranges = [("past", &past_values, "axis.first", "positions.count"), ("new", &v, "positions.count", "end")];
    for (which, values, first, last) in ranges {
        let part = |of: &str| name(&format!("{which}.{of}"));
        b.node("", "Slice", &[&name("weights"), first, last, "axis.last"], &[&part("weights")], vec![]);
        b.node("", "MatMul", &[&part("weights"), values], &[&part("sum")], vec![]);
    }
    b.node("", "Add", &[&name("past.sum"), &name("new.sum")], &[&name("grouped")], vec![]);
    b.node("", "Reshape", &[&name("grouped"), &name("heads")], &[&name("attended.heads")], vec![]);
    side_by_side(b, layer, &name("attended.heads"))
}

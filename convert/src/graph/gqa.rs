//! Attention of the form `Gqa`: `com.microsoft.GroupQueryAttention`, which turns queries and keys, and appends keys and
//! values to their row.

use super::{
    Form, GraphError,
    builder::{Builder, MICROSOFT},
    common::qk_normed,
    rows::{attention_of, cache_names, rope_names},
};
use crate::{
    architecture::{Architecture, Attention, Norm, QkSpan},
    onnx::Attribute,
};

/// Attention of `layer` over its fused queries, keys and values; gives the name of the result.
pub(super) fn attention(b: &mut Builder<'_>, layer: usize, qkv: &str) -> Result<String, GraphError> {
    let architecture = b.architecture();
    let attention = attention_of(architecture, layer)?;
    let Attention { heads, kv_heads, scale, soft_cap, window, rope, qk_norm, .. } = attention;
    let name = |part: &str| format!("layers.{layer}.{part}");
    let [q, k, v] = split(b, attention, layer, qkv)?;
    let mut q = Turning { name: q, heads: *heads, norm: qk_norm.as_ref().map(|norms| &norms.q) };
    let mut k = Turning { name: k, heads: *kv_heads, norm: qk_norm.as_ref().map(|norms| &norms.k) };
    let rope = rope.map(|index| (index, &architecture.ropes[index]));
    let turned = rope.filter(|_| turns_before(architecture, attention));
    q.norm_if(b, layer, attention, false)?;
    k.norm_if(b, layer, attention, false)?;
    if let Some((index, rope)) = turned {
        q.turn(b, index, rope.dim, rope.interleaved);
        k.turn(b, index, rope.dim, rope.interleaved);
    }
    q.norm_if(b, layer, attention, true)?;
    k.norm_if(b, layer, attention, true)?;
    let mut attributes = vec![
        Attribute::int("num_heads", *heads as i64),
        Attribute::int("kv_num_heads", *kv_heads as i64),
        Attribute::float("scale", *scale),
        // As the reference: the token itself is part of its window.
        Attribute::int("local_window_size", window.map_or(-1, |window| window as i64)),
        Attribute::float("softcap", soft_cap.unwrap_or(0.0)),
    ];
    let tables = match rope.filter(|_| turned.is_none()) {
        Some((index, rope)) => {
            attributes.push(Attribute::int("do_rotary", 1));
            attributes.push(Attribute::int("rotary_interleaved", i64::from(rope.interleaved)));
            rope_names(index)
        }
        None => Default::default(),
    };
    let [[past_key, present_key], [past_value, present_value]] = cache_names(Form::Gqa, layer);
    let out = name("attended");
    let [cos, sin] = tables;
    let inputs: [&str; 9] =
        [&q.name, &k.name, &v, &past_key, &past_value, "seqlens_k", "total_sequence_length", &cos, &sin];
    b.node(MICROSOFT, "GroupQueryAttention", &inputs, &[&out, &present_key, &present_value], attributes);
    Ok(out)
}

/// Whether queries and keys are turned before the operator: it turns what it gets, so a norm cannot follow, and it wants
/// tables of a multiple of 8 columns.
pub(super) fn turns_before(architecture: &Architecture, attention: &Attention) -> bool {
    let Some(rope) = attention.rope.map(|index| &architecture.ropes[index]) else { return false };
    !(rope.dim / 2).is_multiple_of(8) || attention.qk_norm.as_ref().is_some_and(|norms| norms.after_rope)
}

/// Queries, keys and values.
pub(super) fn split(
    b: &mut Builder<'_>,
    attention: &Attention,
    layer: usize,
    qkv: &str,
) -> Result<[String; 3], GraphError> {
    let names = ["q", "k", "v"].map(|part| format!("layers.{layer}.{part}"));
    let (q_size, kv_size) = (attention.q_size() as i64, attention.kv_size() as i64);
    let sizes = format!("layers.{layer}.qkv.sizes");
    b.i64s(&sizes, &[q_size, kv_size, kv_size])?;
    let outputs = [names[0].as_str(), &names[1], &names[2]];
    b.node("", "Split", &[qkv, &sizes], &outputs, vec![Attribute::int("axis", -1)]);
    Ok(names)
}

/// Queries or keys on their way to the operator.
struct Turning<'a> {
    name: String,
    heads: usize,
    norm: Option<&'a Norm>,
}

impl Turning<'_> {
    /// Rotates each head.
    fn turn(&mut self, b: &mut Builder<'_>, rope: usize, dim: usize, interleaved: bool) {
        let [cos, sin] = rope_names(rope);
        let out = format!("{}.turned", self.name);
        let attributes = vec![
            Attribute::int("interleaved", i64::from(interleaved)),
            Attribute::int("num_heads", self.heads as i64),
            Attribute::int("rotary_embedding_dim", dim as i64),
        ];
        b.node(MICROSOFT, "RotaryEmbedding", &[&self.name, "position_ids", &cos, &sin], &[&out], attributes);
        self.name = out;
    }

    /// Norms each head, or all heads of a token at once, if that is done after, or before, the rotation.
    fn norm_if(
        &mut self,
        b: &mut Builder<'_>,
        layer: usize,
        attention: &Attention,
        after_rope: bool,
    ) -> Result<(), GraphError> {
        let (Some(norm), Some(norms)) = (self.norm, &attention.qk_norm) else { return Ok(()) };
        if norms.after_rope != after_rope {
            return Ok(());
        }
        let part = |of: &str| format!("{}.{of}", self.name);
        match norms.span {
            QkSpan::Token => self.name = qk_normed(b, layer, norm, &self.name)?,
            QkSpan::Head => {
                let (heads, flat) = (part("heads"), part("flat"));
                b.i64s(&part("heads.shape"), &[0, 0, self.heads as i64, attention.head_dim as i64])?;
                b.i64s(&part("flat.shape"), &[0, 0, (self.heads * attention.head_dim) as i64])?;
                b.node("", "Reshape", &[&self.name, &part("heads.shape")], &[&heads], vec![]);
                let normed = qk_normed(b, layer, norm, &heads)?;
                b.node("", "Reshape", &[&normed, &part("flat.shape")], &[&flat], vec![]);
                self.name = flat;
            }
        }
        Ok(())
    }
}

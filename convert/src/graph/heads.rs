//! Queries, keys and values of each head, `[rows, heads, tokens, head_dim]`, normed and turned: for forms whose attention
//! takes them so.

use super::{
    Form, GraphError,
    builder::Builder,
    common::qk_normed,
    gqa::split,
    masks::gathered_names,
    rows::{attention_of, rope_names},
};
use crate::{
    architecture::{Attention, Layer, Norm, QkNorm, QkSpan},
    onnx::Attribute,
    rope::Rope,
};

/// Whether queries and keys are normed over all heads after they are turned, which is not there.
pub(super) fn norms_turned_tokens(layer: &Layer) -> bool {
    let norms = layer.attention().and_then(|attention| attention.qk_norm.as_ref());
    norms.is_some_and(|norms| norms.after_rope && norms.span == QkSpan::Token)
}

/// Queries, keys and values out of the fused ones of `layer`; gives their names.
pub(super) fn heads(b: &mut Builder<'_>, layer: usize, qkv: &str) -> Result<[String; 3], GraphError> {
    let architecture = b.architecture();
    let attention = attention_of(architecture, layer)?;
    let Attention { heads, kv_heads, rope, qk_norm, .. } = attention;
    let [q, k, v] = split(b, attention, layer, qkv)?;
    let norm = |which: fn(&QkNorm) -> &Norm| qk_norm.as_ref().map(|norms| (norms, which(norms)));
    let rope = rope.map(|index| (index, &architecture.ropes[index]));
    let q = Part { layer, heads: *heads, norm: norm(|norms| &norms.q), rope, name: q };
    let k = Part { layer, heads: *kv_heads, norm: norm(|norms| &norms.k), rope, name: k };
    let v = Part { layer, heads: *kv_heads, norm: None, rope: None, name: v };
    Ok([q.by_heads(b, attention)?, k.by_heads(b, attention)?, v.by_heads(b, attention)?])
}

/// What attention gives, `[rows, heads, tokens, head_dim]`, with the heads of a token side by side; gives its name.
pub(super) fn side_by_side(b: &mut Builder<'_>, layer: usize, x: &str) -> Result<String, GraphError> {
    let size = attention_of(b.architecture(), layer)?.q_size() as i64;
    let name = |part: &str| format!("layers.{layer}.{part}");
    let (turned, shape, out) = (name("attended.tokens"), name("attended.shape"), name("attended"));
    b.node("", "Transpose", &[x], &[&turned], vec![Attribute::ints("perm", &[0, 2, 1, 3])]);
    b.i64s(&shape, &[0, 0, size])?;
    b.node("", "Reshape", &[&turned, &shape], &[&out], vec![]);
    Ok(out)
}

/// Queries, keys or values.
struct Part<'a> {
    layer: usize,
    heads: usize,
    norm: Option<(&'a QkNorm, &'a Norm)>,
    rope: Option<(usize, &'a Rope)>,
    name: String,
}

impl Part<'_> {
    fn by_heads(mut self, b: &mut Builder<'_>, attention: &Attention) -> Result<String, GraphError> {
        self.norm_if(b, QkSpan::Token, false)?;
        let (shape, tokens, heads) = (self.part("shape"), self.part("tokens"), self.part("heads"));
        b.i64s(&shape, &[0, 0, self.heads as i64, attention.head_dim as i64])?;
        b.node("", "Reshape", &[&self.name, &shape], &[&tokens], vec![]);
        b.node("", "Transpose", &[&tokens], &[&heads], vec![Attribute::ints("perm", &[0, 2, 1, 3])]);
        self.name = heads;
        self.norm_if(b, QkSpan::Head, false)?;
        if let Some((index, rope)) = self.rope {
            let out = self.part("turned");
            match b.flavour.form {
                Form::Standard => turn(b, index, rope, (self.heads, attention.head_dim), &self.name, &out),
                _ => turn_in_parts(b, index, rope, attention.head_dim, &self.name, &out)?,
            }
            self.name = out;
        }
        self.norm_if(b, QkSpan::Head, true)?;
        Ok(self.name)
    }

    fn norm_if(&mut self, b: &mut Builder<'_>, span: QkSpan, after_rope: bool) -> Result<(), GraphError> {
        let Some((norms, norm)) = self.norm else { return Ok(()) };
        if norms.span != span || norms.after_rope != after_rope {
            return Ok(());
        }
        self.name = qk_normed(b, self.layer, norm, &self.name)?;
        Ok(())
    }

    fn part(&self, of: &str) -> String {
        format!("{}.{of}", self.name)
    }
}

/// Turns each head by one operator.
fn turn(b: &mut Builder<'_>, index: usize, rope: &Rope, (heads, head_dim): (usize, usize), x: &str, out: &str) {
    let [cos, sin] = rope_names(index);
    let mut attributes = vec![Attribute::int("interleaved", i64::from(rope.interleaved))];
    if rope.dim < head_dim {
        attributes.push(Attribute::int("num_heads", heads as i64));
        attributes.push(Attribute::int("rotary_embedding_dim", rope.dim as i64));
    }
    b.node("", "RotaryEmbedding", &[x, &cos, &sin, "position_ids"], &[out], attributes);
}

/// Turns each head: `[a, b]` becomes `[a cos - b sin, b cos + a sin]`, with what is beyond the turned part as it is.
fn turn_in_parts(
    b: &mut Builder<'_>,
    index: usize,
    rope: &Rope,
    head_dim: usize,
    x: &str,
    out: &str,
) -> Result<(), GraphError> {
    let part = |of: &str| format!("{x}.{of}");
    let last = || vec![Attribute::int("axis", -1)];
    let [cos, sin] = gathered_names(index);
    let (partial, half) = (rope.dim < head_dim, rope.dim / 2);
    let mut whole = x.to_owned();
    if partial {
        let sizes = part("sizes");
        b.i64s(&sizes, &[rope.dim as i64, (head_dim - rope.dim) as i64])?;
        b.node("", "Split", &[x, &sizes], &[&part("part"), &part("rest")], last());
        whole = part("part");
    }
    if rope.interleaved {
        // Neighbours are pairs: those of even numbers first.
        b.i64s(&part("evens"), &(0..rope.dim).map(|i| (i % half * 2 + i / half) as i64).collect::<Vec<_>>())?;
        b.node("", "Gather", &[&whole, &part("evens")], &[&part("sorted")], last());
        whole = part("sorted");
    }
    let [first, second] = ["first", "second"].map(part);
    b.node(
        "",
        "Split",
        &[&whole],
        &[&first, &second],
        vec![Attribute::int("axis", -1), Attribute::int("num_outputs", 2)],
    );
    for (to, op, [left, right]) in [("low", "Sub", [&first, &second]), ("high", "Add", [&second, &first])] {
        let products = [part(&format!("{to}.cos")), part(&format!("{to}.sin"))];
        b.node("", "Mul", &[left, &cos], &[&products[0]], vec![]);
        b.node("", "Mul", &[right, &sin], &[&products[1]], vec![]);
        b.node("", op, &[&products[0], &products[1]], &[&part(to)], vec![]);
    }
    let (low, high, rest) = (part("low"), part("high"), part("rest"));
    if rope.interleaved {
        b.node("", "Concat", &[&low, &high], &[&part("halves")], last());
        b.i64s(&part("pairs"), &(0..rope.dim).map(|i| (i % 2 * half + i / 2) as i64).collect::<Vec<_>>())?;
        let pairs = if partial { part("paired") } else { out.to_owned() };
        b.node("", "Gather", &[&part("halves"), &part("pairs")], &[&pairs], last());
        if partial {
            b.node("", "Concat", &[&pairs, &rest], &[out], last());
        }
        return Ok(());
    }
    let parts: &[&str] = if partial { &[&low, &high, &rest] } else { &[&low, &high] };
    b.node("", "Concat", parts, &[out], last());
    Ok(())
}

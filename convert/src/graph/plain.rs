//! Decoder in 32-bit floats: standard operators, and a `LoraAdd` after each projection. The reference for the other
//! precisions.

use super::{
    FusedProjection, GraphError, LORA_ADD, OPERATOR_DOMAIN,
    builder::{Builder, MICROSOFT},
    common::{attention, select_wanted},
};
use crate::onnx::Attribute;

/// Residual stream: its total, and a pending update that the next norm adds.
pub(super) struct Stream {
    total: String,
    update: Option<String>,
}

/// Embeds `input_ids`.
pub(super) fn embedding(b: &mut Builder<'_>) -> Result<Stream, GraphError> {
    let (vocab, k) = (b.config().vocab_size, b.config().hidden_size);
    let table = b.checkpoint.tensor("model.embed_tokens.weight")?.data;
    b.f32s("embedding", &[vocab, k], &table)?;
    b.node("", "Gather", &["embedding", "input_ids"], &["hidden"], vec![]);
    Ok(Stream { total: "hidden".into(), update: None })
}

/// Adds one layer after `stream`.
pub(super) fn layer(b: &mut Builder<'_>, layer: usize, stream: Stream) -> Result<Stream, GraphError> {
    let prefix = format!("model.layers.{layer}");
    let name = format!("layers.{layer}");

    let (x, total) = norm(b, &format!("{prefix}.input_layernorm.weight"), &format!("{name}.attention"), &stream)?;
    let qkv = projection(b, layer, FusedProjection::Qkv, &x)?;
    let attended = attention(b, layer, &qkv);
    let update = projection(b, layer, FusedProjection::O, &attended)?;

    let stream = Stream { total, update: Some(update) };
    let weight = format!("{prefix}.post_attention_layernorm.weight");
    let (x, total) = norm(b, &weight, &format!("{name}.feed_forward"), &stream)?;
    let gate_up = projection(b, layer, FusedProjection::GateUp, &x)?;
    let activated = gated_silu(b, layer, &gate_up);
    let update = projection(b, layer, FusedProjection::Down, &activated)?;
    Ok(Stream { total, update: Some(update) })
}

/// Final norm and head over the requested rows, as `logits`.
pub(super) fn head(b: &mut Builder<'_>, stream: &Stream) -> Result<(), GraphError> {
    let (normed, _) = norm(b, "model.norm.weight", "final", stream)?;
    select_wanted(b, &normed, "wanted");
    let (vocab, k) = (b.config().vocab_size, b.config().hidden_size);
    let weight = b.checkpoint.tensor("lm_head.weight")?.data;
    b.f32s("head", &[k, vocab], &transposed(&weight, k))?;
    b.node("", "MatMul", &["wanted", "head"], &["logits"], vec![]);
    Ok(())
}

/// RMS norm of the stream; gives the names of the normed values and of the new total.
fn norm(b: &mut Builder<'_>, weight: &str, name: &str, stream: &Stream) -> Result<(String, String), GraphError> {
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

/// `group` of `layer` applied to `x`; gives the name of the result.
fn projection(b: &mut Builder<'_>, layer: usize, group: FusedProjection, x: &str) -> Result<String, GraphError> {
    let (k, n) = (group.inputs(b.config()), group.outputs(b.config()));
    let mut weight = Vec::with_capacity(n * k);
    for module in group.modules() {
        weight.extend_from_slice(&b.checkpoint.tensor(&module.weight(layer))?.data);
    }
    let name = group.name(layer);
    let (weight_name, plain, out) = (format!("{name}.weight"), format!("{name}.base"), format!("{name}.out"));
    b.f32s(&weight_name, &[k, n], &transposed(&weight, k))?;
    b.node("", "MatMul", &[x, &weight_name], &[&plain], vec![]);
    let attributes = vec![Attribute::int("group", group.index(layer) as i64)];
    b.node(OPERATOR_DOMAIN, LORA_ADD, &[&plain, x], &[&out], attributes);
    Ok(out)
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

/// Transposes `[n, k]` to `[k, n]`, in tiles that fit the first-level cache.
fn transposed(weight: &[f32], k: usize) -> Vec<f32> {
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

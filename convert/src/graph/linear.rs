//! Linear layers: a matrix in the flavour's precision, and the adapters' share added to its result.

use super::{
    GraphError, Group, LORA_ADD, OPERATOR_DOMAIN, Precision,
    builder::{Builder, MICROSOFT},
};
use crate::{
    onnx::Attribute,
    quantize::{BLOCK, Bits, quantize},
};

/// int8 activations times integer weights: the fastest MatMulNBits kernels.
const ACCURACY_LEVEL_INT8: i64 = 4;

/// `group` of `layer` applied to `x`; gives the name of the result.
pub(super) fn projection(b: &mut Builder<'_>, layer: usize, group: Group, x: &str) -> Result<String, GraphError> {
    let k = group.inputs(b.config());
    let mut weight = Vec::with_capacity(group.outputs(b.config()) * k);
    for module in group.modules() {
        let tensor = b.checkpoint.tensor(&format!("{}.weight", module.path(layer)))?;
        weight.extend_from_slice(&tensor.data);
    }
    let name = format!("layers.{layer}.{group:?}").to_lowercase();
    let plain = format!("{name}.base");
    let out = format!("{name}.out");
    matrix(b, &name, &weight, k, x, &plain)?;
    b.node(
        OPERATOR_DOMAIN,
        LORA_ADD,
        &[&plain, x, "rows"],
        &[&out],
        vec![Attribute::int("group", group.index(layer) as i64)],
    );
    Ok(out)
}

/// `x` times the transpose of `weight` (row-major `[n, k]`), as `out`.
fn matrix(b: &mut Builder<'_>, name: &str, weight: &[f32], k: usize, x: &str, out: &str) -> Result<(), GraphError> {
    let n = weight.len() / k;
    match b.flavour.precision {
        Precision::F32 => {
            let weight_name = format!("{name}.weight");
            b.f32s(&weight_name, &[k, n], &transposed(weight, k))?;
            b.node("", "MatMul", &[x, &weight_name], &[out], vec![]);
        }
        Precision::Int4 => {
            let quantized = quantize(weight, k, Bits::Four);
            let (weight_name, scales_name) = (format!("{name}.weight"), format!("{name}.scales"));
            let blocks = k.div_ceil(BLOCK);
            b.bytes(&weight_name, &[n, blocks, BLOCK / 2], &quantized.packed)?;
            b.f32s(&scales_name, &[n * blocks], &quantized.scales)?;
            mat_mul_n_bits(b, [x, &weight_name, &scales_name], out, (n, k), Bits::Four);
        }
    }
    Ok(())
}

fn mat_mul_n_bits(b: &mut Builder<'_>, inputs: [&str; 3], out: &str, (n, k): (usize, usize), bits: Bits) {
    let attributes = vec![
        Attribute::int("N", n as i64),
        Attribute::int("K", k as i64),
        Attribute::int("bits", bits.get() as i64),
        Attribute::int("block_size", BLOCK as i64),
        Attribute::int("accuracy_level", ACCURACY_LEVEL_INT8),
    ];
    b.node(MICROSOFT, "MatMulNBits", &inputs, &[out], attributes);
}

/// The embedding of `input_ids` as `hidden`. When the head is tied it reads the same initializer.
pub(super) fn embedding(b: &mut Builder<'_>, hidden: &str) -> Result<(), GraphError> {
    let (vocab, k) = (b.config().vocab_size, b.config().hidden_size);
    let table = b.checkpoint.tensor("model.embed_tokens.weight")?.data;
    match b.flavour.precision {
        Precision::F32 => {
            b.f32s("embedding", &[vocab, k], &table)?;
            b.node("", "Gather", &["embedding", "input_ids"], &[hidden], vec![]);
        }
        Precision::Int4 => {
            let quantized = quantize(&table, k, Bits::Eight);
            let blocks = k.div_ceil(BLOCK);
            // The gather wants whole rows; only a width that fills its blocks can be shared with the head as it is.
            b.bytes("embedding", &[vocab, blocks * BLOCK], &quantized.packed)?;
            b.f32s("embedding.scales", &[vocab, blocks], &quantized.scales)?;
            let attributes = vec![
                Attribute::int("bits", 8),
                Attribute::int("block_size", BLOCK as i64),
                Attribute::int("gather_axis", 0),
                Attribute::int("quantize_axis", 1),
            ];
            let padded = k % BLOCK != 0;
            let gathered = if padded { "hidden.padded" } else { hidden };
            let inputs = ["embedding", "input_ids", "embedding.scales"];
            b.node(MICROSOFT, "GatherBlockQuantized", &inputs, &[gathered], attributes);
            if padded {
                b.i64s("hidden.begin", &[1], &[0])?;
                b.i64s("hidden.end", &[1], &[k as i64])?;
                b.i64s("hidden.axis", &[1], &[2])?;
                b.node("", "Slice", &[gathered, "hidden.begin", "hidden.end", "hidden.axis"], &[hidden], vec![]);
            }
        }
    }
    Ok(())
}

/// The head over `x` `[wanted, hidden]`, as `logits`.
pub(super) fn head(b: &mut Builder<'_>, x: &str) -> Result<(), GraphError> {
    let (vocab, k) = (b.config().vocab_size, b.config().hidden_size);
    let tied = b.config().tie_word_embeddings;
    let source = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
    match b.flavour.precision {
        Precision::F32 => {
            let weight = b.checkpoint.tensor(source)?.data;
            b.f32s("head", &[k, vocab], &transposed(&weight, k))?;
            b.node("", "MatMul", &[x, "head"], &["logits"], vec![]);
        }
        Precision::Int4 => {
            let blocks = k.div_ceil(BLOCK);
            let shape = [vocab, blocks, BLOCK].map(|d| d as i64);
            if tied {
                b.i64s("head.shape", &[3], &shape)?;
                b.node("", "Reshape", &["embedding", "head.shape"], &["head"], vec![]);
                b.i64s("head.scales.shape", &[1], &[(vocab * blocks) as i64])?;
                b.node("", "Reshape", &["embedding.scales", "head.scales.shape"], &["head.scales"], vec![]);
            } else {
                let quantized = quantize(&b.checkpoint.tensor(source)?.data, k, Bits::Eight);
                b.bytes("head", &shape.map(|d| d as usize), &quantized.packed)?;
                b.f32s("head.scales", &[vocab * blocks], &quantized.scales)?;
            }
            mat_mul_n_bits(b, [x, "head", "head.scales"], "logits", (vocab, k), Bits::Eight);
        }
    }
    Ok(())
}

/// `[n, k]` to `[k, n]`, in tiles that stay in the first-level cache.
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

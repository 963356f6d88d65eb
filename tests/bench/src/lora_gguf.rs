//! An adapter as llama.cpp's `--lora` takes it: GGUF version 3, as its `convert_lora_to_gguf.py` writes it.

use std::{fs, path::Path};

use anyhow::Result;
use half::f16;
use slm_convert::architecture::Architecture;

use crate::adapters::{RandomAdapter, RandomPair};

/// Codes of the format.
const TYPE_F32: u32 = 6;
const TYPE_TEXT: u32 = 8;
const TENSOR_F16: u32 = 1;
/// Bytes to a multiple of which every tensor's data is padded; the format's default.
const ALIGNMENT: usize = 32;

/// A tensor of two dimensions, as it will stand in the file.
struct Tensor {
    name: String,
    /// The one that varies fastest comes first, as GGUF has it.
    dimensions: [usize; 2],
    values: Vec<f16>,
}

/// Writes `adapter` of a model of that shape to `file`.
pub(crate) fn write(file: &Path, adapter: &RandomAdapter, base: &Architecture) -> Result<()> {
    let tensors: Vec<Tensor> = adapter.pairs.iter().flat_map(|pair| tensors(pair, adapter.rank, base)).collect();
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    let texts = [("general.type", "adapter"), ("general.architecture", "llama"), ("adapter.type", "lora")];
    out.extend((texts.len() as u64 + 1).to_le_bytes());
    for (key, value) in texts {
        put_text(&mut out, key);
        out.extend(TYPE_TEXT.to_le_bytes());
        put_text(&mut out, value);
    }
    put_text(&mut out, "adapter.lora.alpha");
    out.extend(TYPE_F32.to_le_bytes());
    out.extend(adapter.alpha.to_le_bytes());

    let mut offset = 0;
    for tensor in &tensors {
        put_text(&mut out, &tensor.name);
        out.extend(2u32.to_le_bytes());
        for dimension in tensor.dimensions {
            out.extend((dimension as u64).to_le_bytes());
        }
        out.extend(TENSOR_F16.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += size_of_val(&*tensor.values).next_multiple_of(ALIGNMENT);
    }
    for tensor in &tensors {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend_from_slice(bytemuck::cast_slice(&tensor.values));
    }
    Ok(fs::write(file, out)?)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A pair's two tensors.
fn tensors(pair: &RandomPair, rank: usize, base: &Architecture) -> [Tensor; 2] {
    let attention = &base.layers[pair.place.0].attention;
    let rotary_heads = match pair.name.gguf.as_str() {
        "attn_q" => Some(attention.heads),
        "attn_k" => Some(attention.kv_heads),
        _ => None,
    };
    let (inputs, outputs) = (pair.a.len() / rank, pair.b.len() / rank);
    let b = match rotary_heads {
        Some(heads) => pairs_from_halves(&pair.b, heads, outputs),
        None => pair.b.clone(),
    };
    let name =
        |part| format!("{}.weight.lora_{part}", pair.name.within(&Architecture::layer_prefix(pair.place.0)).gguf);
    [
        Tensor { name: name('a'), dimensions: [inputs, rank], values: pair.a.clone() },
        Tensor { name: name('b'), dimensions: [rank, outputs], values: b },
    ]
}

/// Rows of a rotary projection from the order of Hugging Face (first halves of all pairs of a head, then the second
/// ones) into that of llama.cpp (the two of a pair side by side).
fn pairs_from_halves(data: &[f16], heads: usize, rows: usize) -> Vec<f16> {
    let width = data.len() / rows;
    let head_dim = rows / heads;
    let mut out = Vec::with_capacity(data.len());
    for head in 0..heads {
        for pair in 0..head_dim / 2 {
            for half in 0..2 {
                let row = head * head_dim + half * head_dim / 2 + pair;
                out.extend_from_slice(&data[row * width..][..width]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_come_together_into_pairs_head_by_head() {
        // Two heads of four rows, one column: rows 0 1 2 3 | 4 5 6 7.
        let rows: Vec<f16> = (0..8u8).map(f16::from).collect();
        let expected: Vec<f16> = [0u8, 2, 1, 3, 4, 6, 5, 7].map(f16::from).to_vec();
        assert_eq!(pairs_from_halves(&rows, 2, 8), expected);
    }
}

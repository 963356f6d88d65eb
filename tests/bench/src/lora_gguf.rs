//! An adapter as llama.cpp's `--lora` takes it: GGUF, as its `convert_lora_to_gguf.py` writes it.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result};
use half::f16;
use slm_convert::architecture::Architecture;

use crate::{
    adapters::{RandomAdapter, RandomPair},
    gguf_file::{GgufFile, TensorInfo},
    model::Model,
};

/// Code of f16 (`ggml_type`).
const F16: u32 = 1;

/// Writes `adapter` of a model to `file`.
pub(crate) fn write(file: &Path, adapter: &RandomAdapter, model: &Model) -> Result<()> {
    let mut out = GgufFile::default();
    let texts =
        [("general.type", "adapter"), ("general.architecture", model.gguf_architecture()), ("adapter.type", "lora")];
    texts.into_iter().for_each(|(key, value)| out.text(key, value));
    out.f32("adapter.lora.alpha", adapter.alpha);
    let mut values = HashMap::new();
    for pair in &adapter.pairs {
        for (part, dimensions, of) in matrices(pair, adapter.rank, &model.bundle.info.architecture)? {
            let (name, bytes) = (format!("{}.weight.lora_{part}", pair.name.gguf), size_of_val(&*of));
            values.insert(name.clone(), bytemuck::cast_slice(&of).to_vec());
            out.tensor(TensorInfo { name, dimensions: dimensions.to_vec(), code: F16, bytes });
        }
    }
    Ok(out.write(file, |tensor| values.remove(&tensor.name).unwrap_or_default())?)
}

/// A matrix: its letter, its dimensions, the one that varies fastest first, and its values.
type Matrix = (char, [usize; 2], Vec<f16>);

/// A pair's two matrices.
fn matrices(pair: &RandomPair, rank: usize, base: &Architecture) -> Result<[Matrix; 2]> {
    let (inputs, outputs) = (pair.a.len() / rank, pair.b.len() / rank);
    let b = match base.linear(pair.place).context("no such layer")?.gguf_pairs {
        Some(heads) => pairs_from_halves(&pair.b, heads, outputs),
        None => pair.b.clone(),
    };
    Ok([('a', [inputs, rank], pair.a.clone()), ('b', [rank, outputs], b)])
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

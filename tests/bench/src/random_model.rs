//! A Llama of 1.1 billion random weights, as a GGUF file: speed does not depend on what weights say. Its tokenizer is
//! SmolLM2's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use half::f16;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::gguf_file::{GgufFile, TensorInfo};

const LAYERS: usize = 16;
const HIDDEN: usize = 2048;
const FEED_FORWARD: usize = 8192;
const HEADS: usize = 32;
const KV_HEADS: usize = 8;
const VOCAB: usize = 49152;
/// Standard deviation of weights that keeps activations near one: `1 / sqrt(HIDDEN)`.
const DEVIATION: f32 = 0.022;

/// Type of the linear layers; the embedding is Q6_K, as llama.cpp makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocks {
    Q4_0,
    Q4K,
}

/// Codes (`ggml_type`).
const F32: u32 = 0;
const Q4_0: u32 = 2;
const Q4_K: u32 = 12;
const Q6_K: u32 = 14;

/// The file in `folder`; written, with the tokenizer of the GGUF file `like`, if it is not there.
pub(crate) fn file(folder: &Path, like: &Path, blocks: Blocks) -> Result<PathBuf> {
    let path = folder.join(format!("random-llama-1.1b.{}.gguf", if blocks == Blocks::Q4_0 { "Q4_0" } else { "Q4_K" }));
    if path.exists() {
        return Ok(path);
    }
    let partial = path.with_extension("partial");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    describe(like, blocks)?.write(&partial, |tensor| data(tensor, &mut random))?;
    fs::rename(&partial, &path)?;
    Ok(path)
}

fn describe(like: &Path, blocks: Blocks) -> Result<GgufFile> {
    let mut file = GgufFile::default();
    file.text("general.architecture", "llama");
    file.text("general.name", "1.1 billion random weights");
    let sizes = [
        ("block_count", LAYERS),
        ("context_length", 8192),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", FEED_FORWARD),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("rope.dimension_count", HIDDEN / HEADS),
        ("vocab_size", VOCAB),
    ];
    sizes.into_iter().for_each(|(key, value)| file.u32(&format!("llama.{key}"), value as u32));
    file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    file.f32("llama.rope.freq_base", 100_000.0);
    let bytes = fs::read(like).with_context(|| like.display().to_string())?;
    let tokenizer = entries(&bytes).with_context(|| like.display().to_string())?;
    tokenizer.into_iter().filter(|(key, _)| key.starts_with("tokenizer.")).for_each(|(_, entry)| file.entry(entry));

    let code = if blocks == Blocks::Q4_0 { Q4_0 } else { Q4_K };
    let mut tensor = |name: &str, dimensions: &[usize], code: u32| {
        let (values, bytes) = block(code);
        let bytes = dimensions.iter().product::<usize>() / values * bytes;
        file.tensor(TensorInfo { name: format!("{name}.weight"), dimensions: dimensions.to_vec(), code, bytes });
    };
    tensor("token_embd", &[HIDDEN, VOCAB], Q6_K);
    tensor("output_norm", &[HIDDEN], F32);
    let kv = HIDDEN / HEADS * KV_HEADS;
    for layer in 0..LAYERS {
        let linears = [
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", HIDDEN, kv),
            ("attn_v", HIDDEN, kv),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", HIDDEN, FEED_FORWARD),
            ("ffn_up", HIDDEN, FEED_FORWARD),
            ("ffn_down", FEED_FORWARD, HIDDEN),
        ];
        linears
            .iter()
            .for_each(|(name, inputs, outputs)| tensor(&format!("blk.{layer}.{name}"), &[*inputs, *outputs], code));
        ["attn_norm", "ffn_norm"].iter().for_each(|name| tensor(&format!("blk.{layer}.{name}"), &[HIDDEN], F32));
    }
    Ok(file)
}

/// Values and bytes of a block.
fn block(code: u32) -> (usize, usize) {
    match code {
        Q4_0 => (32, 18),
        Q4_K => (256, 144),
        Q6_K => (256, 210),
        _ => (1, 4),
    }
}

/// Random quants under scales that give [`DEVIATION`]; norms are ones.
fn data(tensor: &TensorInfo, random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = vec![0; tensor.bytes];
    if tensor.code == F32 {
        bytes.chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&1f32.to_le_bytes()));
        return bytes;
    }
    random.fill_bytes(&mut bytes);
    // Deviations of uniform numbers of four and six bits.
    let (four, six) = (4.61, 18.5);
    let half = |value: f32| f16::from_f32(value).to_le_bytes();
    for block in bytes.chunks_exact_mut(self::block(tensor.code).1) {
        match tensor.code {
            Q4_0 => block[..2].copy_from_slice(&half(DEVIATION / four)),
            Q4_K => {
                // All factors are 32: six bits, of which the last four blocks have two beside those of the first.
                block[..2].copy_from_slice(&half(DEVIATION / four / 32.0));
                block[2..4].copy_from_slice(&half(7.5 * DEVIATION / four / 32.0));
                block[4..12].fill(0xa0);
                block[12..16].fill(0);
            }
            _ => {
                block[192..208].fill(8);
                block[208..].copy_from_slice(&half(DEVIATION / six / 8.0));
            }
        }
    }
    bytes
}

/// Keys of a GGUF file's metadata, each with the bytes of its entry.
fn entries(file: &[u8]) -> Result<Vec<(&str, &[u8])>> {
    let mut reader = Reader { file, at: 8 };
    let _tensors = reader.u64()?;
    let count = reader.u64()?;
    (0..count)
        .map(|_| {
            let begin = reader.at;
            let key = reader.text()?;
            let kind = reader.u32()?;
            reader.value(kind)?;
            Ok((key, &file[begin..reader.at]))
        })
        .collect()
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let bytes = self.file.get(self.at..self.at + count).context("the file ends early")?;
        self.at += count;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(4)?.try_into()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(8)?.try_into()?))
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = self.u64()?;
        Ok(std::str::from_utf8(self.bytes(length as usize)?)?)
    }

    /// Passes over a value.
    fn value(&mut self, kind: u32) -> Result<()> {
        match kind {
            0 | 1 | 7 => self.bytes(1).map(drop),
            2 | 3 => self.bytes(2).map(drop),
            4..=6 => self.bytes(4).map(drop),
            8 => self.text().map(drop),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                (0..count).try_for_each(|_| self.value(kind))
            }
            10..=12 => self.bytes(8).map(drop),
            _ => bail!("a value of type {kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use slm_convert::checkpoint::Checkpoint;
    use slm_tests::real;

    use super::*;

    #[test]
    fn entries_of_a_file_are_found() {
        let mut file = GgufFile::default();
        file.text("a", "text");
        file.u32("b", 7);
        file.f32("c", 0.5);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        file.write(&path, |_| Vec::new()).unwrap();
        let bytes = fs::read(&path).unwrap();
        let found = entries(&bytes).unwrap();
        assert_eq!(
            found.iter().map(|(key, entry)| (*key, entry.len())).collect::<Vec<_>>(),
            [("a", 25), ("b", 17), ("c", 17)]
        );
    }

    #[test]
    #[ignore = "writes 600 MB"]
    fn the_files_are_models() {
        let folder = tempfile::tempdir().unwrap();
        for blocks in [Blocks::Q4_0, Blocks::Q4K] {
            let path = file(folder.path(), &real::gguf().unwrap(), blocks).unwrap();
            let checkpoint = Checkpoint::open(&path).unwrap();
            assert_eq!(checkpoint.architecture().layers.len(), LAYERS);
            let weights = checkpoint.tensor("model.layers.0.mlp.up_proj.weight").unwrap().data;
            let deviation = (weights.iter().map(|weight| weight * weight).sum::<f32>() / weights.len() as f32).sqrt();
            assert!((deviation / DEVIATION - 1.0).abs() < 0.05, "{deviation}");
        }
    }
}

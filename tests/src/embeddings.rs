//! Fixtures of embeddings: models, texts, and the vectors that sentence-transformers makes of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use slm_convert::bundle::cache_dir;
use slm_proto::v1::{self, embed_input::Input};

/// A file or folder of the fixtures.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("embeddings/data").join(name)
}

/// all-MiniLM-L6-v2, where `scripts/setup` puts it.
///
/// # Errors
/// It is not there.
pub fn minilm() -> Result<PathBuf> {
    let path = cache_dir().context("no cache folder")?.join("models/all-MiniLM-L6-v2");
    ensure!(path.join("model.safetensors").exists(), "{}: not there; run `scripts/setup minilm`", path.display());
    Ok(path)
}

/// The texts of a file.
///
/// # Errors
/// It cannot be read.
pub fn texts(file: &Path) -> Result<Vec<String>> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// The texts of a file that has pieces of this repository's licence, by first word and length, beside whole texts.
///
/// # Errors
/// It cannot be read.
pub fn sentences(file: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Sentence {
        Whole(String),
        Piece(usize, usize),
    }
    let licence = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../LICENSE"))?;
    let words: Vec<&str> = licence.split_whitespace().collect();
    let sentences: Vec<Sentence> = serde_json::from_slice(&fs::read(file)?)?;
    let text = |sentence| match sentence {
        Sentence::Whole(text) => Ok(text),
        Sentence::Piece(begin, length) => {
            let piece = words.get(begin..begin + length).context("the licence has fewer words; make the file anew")?;
            Ok(piece.join(" "))
        }
    };
    sentences.into_iter().map(text).collect()
}

/// The vectors of a file, in the order of its texts, in 32 or 16 bits.
///
/// # Errors
/// It cannot be read.
pub fn vectors(file: &Path) -> Result<Vec<Vec<f32>>> {
    let bytes = fs::read(file)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let vectors = tensors.tensor("vectors")?;
    let data = vectors.data();
    let floats: Vec<f32> = match vectors.dtype() {
        Dtype::F16 => data.chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect(),
        _ => data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect(),
    };
    Ok(floats.chunks_exact(vectors.shape()[1]).map(<[f32]>::to_vec).collect())
}

/// A request that cuts what is too long.
#[must_use]
pub fn request(model: &str, texts: &[String]) -> v1::EmbedRequest {
    let input = |text: &String| v1::EmbedInput { input: Some(Input::Text(text.clone())) };
    v1::EmbedRequest {
        model: model.to_owned(),
        inputs: texts.iter().map(input).collect(),
        truncate: true,
        ..Default::default()
    }
}

/// Cosine of the angle between two vectors.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

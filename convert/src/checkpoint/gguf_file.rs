//! A model in one GGUF file, seen through Hugging Face names and row order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::names::{self, Expected};
use super::{CheckpointError, Stored, Tensor};
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::generation::GenerationDefaults;
use crate::gguf::{Gguf, Kind};
use crate::rope::RopeScaling;
use crate::{families, tokenizer};

const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// An opened GGUF file whose tensors fit its metadata.
#[derive(Debug)]
pub(super) struct GgufFile {
    gguf: Gguf,
    config: ModelConfig,
    generation: GenerationDefaults,
    /// By Hugging Face name.
    tensors: BTreeMap<String, Expected>,
}

/// The GGUF file that `path` means: itself, or the only one in a folder without `config.json`.
pub(super) fn find(path: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(Some(path.to_owned()));
    }
    if path.join("config.json").is_file() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file.extension().is_some_and(|extension| extension == "gguf") && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    match found.as_slice() {
        [file] => Ok(Some(file.clone())),
        [] => Err(CheckpointError::NoModel {
            path: path.to_owned(),
            found: "neither config.json nor a .gguf file is there".to_owned(),
        }),
        [first, second, ..] => Err(CheckpointError::NoModel {
            path: path.to_owned(),
            found: format!(
                "{} .gguf files are there ({}, {}, …): name one of them",
                found.len(),
                first.display(),
                second.display()
            ),
        }),
    }
}

impl GgufFile {
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let gguf = Gguf::open(path)?;
        let file = path.display().to_string();
        let scalars = gguf.scalars();
        let mut config = families::from_gguf(&file, &scalars)?;
        config.tie_word_embeddings = gguf.tensor(HEAD).is_none();
        if config.vocab_size == 0 {
            config.vocab_size = gguf.tensor(EMBEDDING).and_then(|info| info.shape.first().copied()).unwrap_or(0);
        }
        if let Some(divisors) = gguf.values(ROPE_DIVISORS) {
            config.rope.scaling = RopeScaling::Divisors(divisors);
        }
        config.check(&file)?;

        let generation = generation(&gguf, &file, config.vocab_size)?;
        let expected = names::expected(&config);
        check_tensors(&gguf, &config, &expected)?;
        let tensors = expected.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Ok(Self { gguf, config, generation, tensors })
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let missing = || CheckpointError::MissingTensor { path: self.gguf.path().to_owned(), tensor: name.to_owned() };
        let expected = self.tensors.get(name).ok_or_else(missing)?;
        let data = self.gguf.values(&expected.gguf).ok_or_else(missing)?;
        let data = match expected.rotary_heads {
            Some(heads) => halves_from_pairs(&data, heads, expected.shape[0]),
            None => data,
        };
        Ok(Tensor { shape: expected.shape.clone(), data })
    }

    pub(super) fn kind(&self, name: &str) -> Option<Kind> {
        Some(self.gguf.tensor(&self.tensors.get(name)?.gguf)?.kind)
    }

    pub(super) fn stored(&self, name: &str) -> Option<Stored<'_>> {
        let expected = self.tensors.get(name)?;
        let (kind, bytes) = self.gguf.stored(&expected.gguf)?;
        let bytes = match expected.rotary_heads {
            Some(heads) => halves_from_pairs(bytes, heads, expected.shape[0]).into(),
            None => bytes.into(),
        };
        Some(Stored { kind, shape: expected.shape.clone(), bytes })
    }

    pub(super) fn tokenizer(&self) -> Result<Option<tokenizers::Tokenizer>, CheckpointError> {
        Ok(tokenizer::from_gguf(&self.gguf)?)
    }

    pub(super) fn chat_template(&self) -> Result<Option<ChatTemplate>, CheckpointError> {
        let Some(source) = self.gguf.text("tokenizer.chat_template") else { return Ok(None) };
        let token = |key: &str| {
            let id = self.gguf.unsigned(key)?;
            self.gguf.array("tokenizer.ggml.tokens")?.nth(usize::try_from(id).ok()?)?.as_text().map(str::to_owned)
        };
        let (bos, eos) = (token("tokenizer.ggml.bos_token_id"), token("tokenizer.ggml.eos_token_id"));
        let file = self.gguf.path().display().to_string();
        Ok(Some(ChatTemplate::new(&file, source.to_owned(), bos, eos)?))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.gguf.bytes()
    }
}

/// Rows of a rotary projection from GGUF's order (the two of a pair side by side) into that of Hugging Face (first
/// halves of all pairs of a head, then the second ones).
fn halves_from_pairs<T: Copy>(data: &[T], heads: usize, rows: usize) -> Vec<T> {
    let width = data.len() / rows;
    let head_dim = rows / heads;
    let mut out = Vec::with_capacity(data.len());
    for head in 0..heads {
        for half in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = head * head_dim + pair * 2 + half;
                out.extend_from_slice(&data[row * width..][..width]);
            }
        }
    }
    out
}

fn check_tensors(gguf: &Gguf, config: &ModelConfig, expected: &[Expected]) -> Result<(), CheckpointError> {
    let path = || gguf.path().to_owned();
    for Expected { gguf: name, shape, .. } in expected {
        let tensor = name.clone();
        let Some(info) = gguf.tensor(name) else {
            return Err(CheckpointError::MissingTensor { path: path(), tensor });
        };
        if info.shape != *shape {
            let (found, expected) = (info.shape.clone(), shape.clone());
            return Err(CheckpointError::Shape { path: path(), tensor, found, expected });
        }
    }
    let known: std::collections::BTreeSet<&str> = expected.iter().map(|tensor| tensor.gguf.as_str()).collect();
    match gguf.tensor_names().find(|name| !known.contains(name) && *name != ROPE_DIVISORS) {
        Some(name) => Err(CheckpointError::UnexpectedTensor {
            path: path(),
            tensor: name.to_owned(),
            family: format!("{:?}", config.family),
        }),
        None => Ok(()),
    }
}

/// End and begin of text, as the metadata name them.
fn generation(gguf: &Gguf, file: &str, vocab_size: usize) -> Result<GenerationDefaults, CheckpointError> {
    let mut defaults = GenerationDefaults::default();
    for (key, name) in [
        ("tokenizer.ggml.eos_token_id", "eos_token_id"),
        ("tokenizer.ggml.eot_token_id", "eos_token_id"),
        ("tokenizer.ggml.eom_token_id", "eos_token_id"),
        ("tokenizer.ggml.bos_token_id", "bos_token_id"),
    ] {
        if let Some(id) = gguf.unsigned(key) {
            let map = serde_json::Map::from_iter([(name.to_owned(), id.into())]);
            defaults.merge(&format!("{file}: {key}"), &map, vocab_size)?;
        }
    }
    Ok(defaults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_apart_into_halves_head_by_head() {
        // Two heads of four rows, one column: rows 0 1 2 3 | 4 5 6 7.
        let rows: Vec<f32> = (0..8).map(|row| row as f32).collect();
        assert_eq!(halves_from_pairs(&rows, 2, 8), [0., 2., 1., 3., 4., 6., 5., 7.]);
    }
}

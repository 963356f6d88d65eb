//! GGUF models: one file or several, presented with Hugging Face names and row order.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::gguf_places::{self, Place};
use super::{CheckpointError, Stored, Tensor, lookalike};
use crate::architecture::{Architecture, Transform};
use crate::chat::{ChatError, ChatTemplate};
use crate::generation::{GenerationDefaults, add_ends};
use crate::gguf::{Gguf, PartName, TensorType};
use crate::{digest, families, tokenizer};

const BOS: &str = "tokenizer.ggml.bos_token_id";

/// An opened GGUF file whose tensors fit its metadata.
#[derive(Debug)]
pub(super) struct GgufFile {
    gguf: Gguf,
    architecture: Architecture,
    generation: GenerationDefaults,
    /// Tensors by Hugging Face name.
    tensors: BTreeMap<String, Place>,
}

/// The GGUF file for `path`: the file itself, or, in a folder without safetensors, the only one or a part of the only
/// model in parts.
pub(super) fn find(path: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let no_model = |found: &str| CheckpointError::NoModel { path: path.to_owned(), found: found.to_owned() };
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        return match lookalike::file(path).filter(|_| !begins_as_gguf(path)) {
            Some(other) => {
                // A pointer file is reported as one, whatever its name.
                crate::mapped::Mapped::open(path).map_err(io)?;
                Err(no_model(other))
            }
            None => Ok(Some(path.to_owned())),
        };
    }
    let ggufs = beside(path).map_err(io)?;
    let has = |name: &str| path.join(name).is_file();
    if has("config.json") && (ggufs.is_empty() || has("model.safetensors") || has("model.safetensors.index.json")) {
        return Ok(None);
    }
    match ggufs.as_slice() {
        [file] => Ok(Some(file.clone())),
        [first, rest @ ..] if are_parts(first, rest) => Ok(Some(first.clone())),
        _ => Err(no_model(&lookalike::folder(path))),
    }
}

/// Whether all files are parts of one model, by their names.
fn are_parts(first: &Path, rest: &[PathBuf]) -> bool {
    let Some(first) = PartName::of(first) else { return false };
    rest.iter().all(|other| PartName::of(other).is_some_and(|other| other.is_with(&first)))
}

/// The GGUF files of a folder that may be models, sorted; not vision projectors (`mmproj`).
pub(super) fn beside(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let (file, name) = (entry.path(), entry.file_name());
        let projector = name.to_string_lossy().starts_with("mmproj");
        if file.extension().is_some_and(|extension| extension == "gguf") && !projector && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

fn begins_as_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    crate::mapped::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok_and(|()| magic == *b"GGUF")
}

impl families::Tensors for Gguf {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensor(name)?.shape)
    }

    fn values(&self, name: &str) -> Option<Vec<f32>> {
        Gguf::values(self, name)
    }
}

impl GgufFile {
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let gguf = Gguf::open(path)?;
        let file = path.display().to_string();
        let scalars = gguf.fields();
        let architecture = families::from_gguf(&file, &scalars, &gguf)?;

        let mut generation = generation(&gguf, &file, architecture.vocab_size);
        let template = chat_template(&gguf).ok().flatten();
        add_ends(&mut generation, &tokenizer::candidates_of_gguf(&gguf), template.as_ref(), architecture.vocab_size);
        generation
            .notes
            .extend(template.as_ref().and_then(ChatTemplate::problem).map(|note| format!("{file}: {note}")));
        if scalars.get("tokenizer.chat_template").is_some_and(|value| !value.is_string()) {
            generation.notes.push(format!("{file}: tokenizer.chat_template is no text; it is ignored"));
        }
        let places = gguf_places::places(&architecture, &gguf);
        check_tensors(&gguf, &architecture, &places)?;
        let tensors = places.into_iter().map(|place| (place.spec.name.clone(), place)).collect();
        Ok(Self { gguf, architecture, generation, tensors })
    }

    /// The file, or the first of a model in parts.
    pub(super) fn path(&self) -> &Path {
        self.gguf.path()
    }

    pub(super) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    pub(super) fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let missing = || CheckpointError::MissingTensor { path: self.gguf.path().to_owned(), tensor: name.to_owned() };
        let place = self.tensors.get(name).ok_or_else(missing)?;
        let (kind, bytes) = place.stored(&self.gguf).ok_or_else(missing)?;
        let (expected, data) = (&place.spec, kind.dequantise(bytes));
        let data = match expected.transform {
            Transform::SplitPairs { heads } => halves_from_pairs(&data, heads, expected.shape[0]),
            Transform::LogOfNegative => data.iter().map(|value| (-value).ln()).collect(),
            // GGUF stores gains as they are applied.
            Transform::AddOne | Transform::Convolution | Transform::Nothing => data,
        };
        Ok(Tensor { shape: expected.shape.clone(), data })
    }

    pub(super) fn kind(&self, name: &str) -> Option<TensorType> {
        Some(self.gguf.tensor(&self.tensors.get(name)?.name)?.kind)
    }

    pub(super) fn stored(&self, name: &str) -> Option<Stored<'_>> {
        let place = self.tensors.get(name)?;
        let (expected, (kind, bytes)) = (&place.spec, place.stored(&self.gguf)?);
        let bytes = match expected.transform {
            Transform::SplitPairs { heads } => halves_from_pairs(bytes, heads, expected.shape[0]).into(),
            Transform::AddOne | Transform::Convolution | Transform::LogOfNegative | Transform::Nothing => bytes.into(),
        };
        let &[outputs, inputs] = expected.shape.as_slice() else { return None };
        Stored::gguf(kind, bytes, [outputs, inputs])
    }

    pub(super) fn tokenizer(&self) -> Result<Option<tokenizers::Tokenizer>, CheckpointError> {
        Ok(tokenizer::from_gguf(&self.gguf, &self.generation.eos_token_ids)?)
    }

    pub(super) fn chat_template(&self) -> Result<Option<ChatTemplate>, CheckpointError> {
        chat_template(&self.gguf).map_err(|source| CheckpointError::Chat { path: self.gguf.path().to_owned(), source })
    }

    /// Warnings for the load of the model.
    pub(super) fn notes(&self) -> Vec<String> {
        let silent = self.gguf.text("tokenizer.ggml.model").is_none_or(|model| matches!(model, "no_vocab" | "none"));
        let note =
            silent.then(|| format!("{}: no tokenizer: requests have to send token ids", self.gguf.path().display()));
        self.generation.notes.iter().cloned().chain(note).collect()
    }

    /// Digest of the file, or of all parts in their order, whatever they are called.
    pub(super) fn digest(&self) -> String {
        let mut files = self.gguf.files();
        match (files.len(), files.next()) {
            (1, Some(bytes)) => digest::of_bytes(bytes),
            _ => {
                let parts: Vec<_> =
                    self.gguf.files().enumerate().map(|(part, bytes)| (part.to_string(), bytes)).collect();
                digest::of_files(parts.iter().map(|(part, bytes)| (part.as_str(), *bytes)))
            }
        }
    }
}

fn chat_template(gguf: &Gguf) -> Result<Option<ChatTemplate>, ChatError> {
    let key = "tokenizer.chat_template";
    let Some(source) = gguf.text(key) else { return Ok(None) };
    let token = |key: &str| {
        let id = gguf.unsigned(&format!("tokenizer.ggml.{key}_token_id"))?;
        gguf.array("tokenizer.ggml.tokens")?.nth(usize::try_from(id).ok()?)?.as_text().map(str::to_owned)
    };
    let template = ChatTemplate::new(key, source.to_owned(), token("bos"), token("eos"))?;
    // The second spelling is the older one.
    let variables = [
        ("unk_token", token("unknown")),
        ("pad_token", token("padding")),
        ("sep_token", token("separator").or_else(|| token("seperator"))),
        ("cls_token", token("cls")),
        ("mask_token", token("mask")),
    ];
    let variables = variables.into_iter().filter_map(|(name, token)| Some((name.to_owned(), token?.into())));
    Ok(Some(template.with_special_tokens(variables.collect())))
}

/// Rows of a rotary projection, from GGUF's order (pairs adjacent) to that of Hugging Face (first halves of all pairs
/// of a head, then the second ones).
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

fn check_tensors(gguf: &Gguf, architecture: &Architecture, places: &[Place]) -> Result<(), CheckpointError> {
    let path = || gguf.path().to_owned();
    for Place { name, whole: shape, .. } in places {
        let tensor = name.clone();
        let Some(info) = gguf.tensor(name) else {
            return Err(CheckpointError::MissingTensor { path: path(), tensor });
        };
        if info.shape != *shape {
            let (found, expected) = (info.shape.clone(), shape.clone());
            return Err(CheckpointError::Shape { path: path(), tensor, found, expected });
        }
    }
    let known: std::collections::BTreeSet<&str> = places.iter().map(|place| place.name.as_str()).collect();
    match gguf.tensor_names().find(|name| !known.contains(name) && !families::OF_METADATA.contains(name)) {
        Some(name) => Err(CheckpointError::UnexpectedTensor {
            path: path(),
            tensor: name.to_owned(),
            family: architecture.family.clone(),
        }),
        None => Ok(()),
    }
}

/// End and begin tokens of the metadata.
fn generation(gguf: &Gguf, file: &str, vocab_size: usize) -> GenerationDefaults {
    let mut defaults = GenerationDefaults::default();
    let scalars = gguf.fields();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        for id in defaults.token_ids(file, &scalars, key, vocab_size) {
            defaults.add_end(id, "", &format!("{file}: {key}"));
        }
    }
    defaults.bos_token_id = defaults.token_ids(file, &scalars, BOS, vocab_size).first().copied();
    defaults
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

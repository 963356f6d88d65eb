//! Tokenizers, from `tokenizer.json` or the metadata of a GGUF file.

mod added;
mod byte_level;
mod pre;
mod sentence_piece;
mod vocabulary;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::Tokenizer;

use crate::generation::ControlTokens;
use crate::gguf::Gguf;
use vocabulary::Vocabulary;

/// A tokenizer that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Not a valid tokenizer.json.
    #[error("{}: not a readable tokenizer: {problem}; fetch the file again", path.display())]
    Json {
        /// Path of the file.
        path: PathBuf,
        /// Message of the parser.
        problem: String,
    },
    /// GGUF metadata do not describe a tokenizer.
    #[error("{}: `{field}`: {problem}", path.display())]
    Metadata {
        /// Path of the file.
        path: PathBuf,
        /// Metadata key.
        field: String,
        /// Description of the problem.
        problem: String,
    },
}

/// Parses a `tokenizer.json`.
pub(crate) fn from_json(path: &Path, bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
    let unreadable = |problem: String| TokenizerError::Json { path: path.to_owned(), problem };
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| unreadable(error.to_string()))?;
    // Remnants of training: a prompt must not be truncated or padded silently.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| unreadable(error.to_string()))?;
    Ok(tokenizer)
}

/// The parts of a `tokenizer.json` that are read without building the tokenizer.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

/// Control tokens of a `tokenizer.json`.
pub(crate) fn controls_of_json(path: &Path, bytes: &[u8]) -> Result<ControlTokens, TokenizerError> {
    let outline: Outline = serde_json::from_slice(bytes)
        .map_err(|error| TokenizerError::Json { path: path.to_owned(), problem: error.to_string() })?;
    let special = outline.added_tokens.into_iter().filter(|token| token.special && !token.content.is_empty());
    Ok(special.map(|token| (token.content, token.id)).collect())
}

/// Texts and ids of the added tokens of a `tokenizer.json`.
pub(crate) fn added_in_json(path: &Path, bytes: &[u8]) -> Result<Vec<(String, u32)>, TokenizerError> {
    let outline: Outline = serde_json::from_slice(bytes)
        .map_err(|error| TokenizerError::Json { path: path.to_owned(), problem: error.to_string() })?;
    Ok(outline.added_tokens.into_iter().map(|token| (token.content, token.id)).collect())
}

/// Id of a token of any kind in a `tokenizer.json`.
pub(crate) fn id_in_json(bytes: &[u8], text: &str) -> Option<u32> {
    let outline: Outline = serde_json::from_slice(bytes).ok()?;
    if let Some(added) = outline.added_tokens.iter().find(|token| token.content == text) {
        return Some(added.id);
    }
    let whole: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let id = match &whole["model"]["vocab"] {
        serde_json::Value::Object(ids) => ids.get(text)?.as_u64()?,
        // Unigram: pairs of text and score, in the order of ids.
        serde_json::Value::Array(pieces) => pieces.iter().position(|piece| piece[0] == text)? as u64,
        _ => return None,
    };
    u32::try_from(id).ok()
}

/// Control tokens of a GGUF file; empty if it has no vocabulary.
pub(crate) fn controls_of_gguf(gguf: &Gguf) -> ControlTokens {
    let Ok(vocabulary) = Vocabulary::read(gguf) else { return ControlTokens::new() };
    let tokens = (0u32..).zip(vocabulary.texts.iter().zip(&vocabulary.kinds));
    let controls = tokens.filter(|(_, (text, kind))| **kind == vocabulary::TokenType::Control && !text.is_empty());
    let mut found = ControlTokens::new();
    for (id, (text, _)) in controls {
        found.entry((*text).to_owned()).or_insert(id);
    }
    found
}

/// Builds the tokenizer of a GGUF file; `None` if it has none.
pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Option<Tokenizer>, TokenizerError> {
    let key = "tokenizer.ggml.model";
    let Some(model) = gguf.text(key) else { return Ok(None) };
    let wrong =
        |problem: String| TokenizerError::Metadata { path: gguf.path().to_owned(), field: key.to_owned(), problem };
    match model {
        "no_vocab" | "none" => Ok(None),
        "gpt2" => byte_level::build(gguf, &Vocabulary::read(gguf)?).map(Some),
        "llama" => sentence_piece::build(gguf, &Vocabulary::read(gguf)?).map(Some),
        other => Err(wrong(format!("{other:?} is not supported; supported: gpt2, llama"))),
    }
}

/// An error about one metadata key of `gguf`.
fn metadata_error(gguf: &Gguf, field: &str, problem: impl Into<String>) -> TokenizerError {
    TokenizerError::Metadata { path: gguf.path().to_owned(), field: field.to_owned(), problem: problem.into() }
}

//! Tokenizers, from `tokenizer.json` or the metadata of a GGUF file.

mod added;
mod byte_level;
mod declared;
mod pre;
mod sentence_piece;
mod vocabulary;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::Tokenizer;

use crate::generation::{EndCandidates, is_unmistakable, looks_like_control};
use crate::gguf::Gguf;
pub(crate) use declared::{Declared, add as add_declared, declared, ids_in_model, with_declared};
use vocabulary::{TokenType, Vocabulary};

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
    // The library panics on some files, such as ones with an empty pattern.
    let read = catch_unwind(|| Tokenizer::from_bytes(bytes));
    let read = read.map_err(|_| unreadable("the tokenizers library fails on it".to_owned()))?;
    let mut tokenizer = read.map_err(|error| unreadable(error.to_string()))?;
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
}

/// Texts and ids of the added tokens of a `tokenizer.json`.
pub(crate) fn added_in_json(path: &Path, bytes: &[u8]) -> Result<Vec<(String, u32)>, TokenizerError> {
    let outline: Outline = serde_json::from_slice(bytes)
        .map_err(|error| TokenizerError::Json { path: path.to_owned(), problem: error.to_string() })?;
    Ok(outline.added_tokens.into_iter().map(|token| (token.content, token.id)).collect())
}

/// Tokens of a GGUF file that can end an answer; none if it has no vocabulary.
pub(crate) fn candidates_of_gguf(gguf: &Gguf) -> EndCandidates {
    let mut found = EndCandidates::default();
    let Ok(vocabulary) = Vocabulary::read(gguf) else { return found };
    // In byte-level vocabularies merges make pieces such as `</s>` of ordinary text.
    let merged = gguf.text("tokenizer.ggml.model") != Some("llama");
    for (id, (text, kind)) in (0u32..).zip(vocabulary.texts.iter().zip(&vocabulary.kinds)) {
        let tokens = match kind {
            TokenType::Control | TokenType::UserDefined if !text.is_empty() => &mut found.added,
            TokenType::Normal | TokenType::Unused if is_unmistakable(text) || (!merged && looks_like_control(text)) => {
                &mut found.added
            }
            TokenType::Normal | TokenType::Unused if looks_like_control(text) => &mut found.lookalikes,
            _ => continue,
        };
        tokens.entry((*text).to_owned()).or_insert(id);
    }
    found
}

/// Builds the tokenizer of a GGUF file; `None` if it has none. Ordinary tokens among `ends` become control tokens if they
/// look like some, as in llama.cpp.
pub(crate) fn from_gguf(gguf: &Gguf, ends: &[u32]) -> Result<Option<Tokenizer>, TokenizerError> {
    let key = "tokenizer.ggml.model";
    let Some(model) = gguf.text(key) else { return Ok(None) };
    let wrong =
        |problem: String| TokenizerError::Metadata { path: gguf.path().to_owned(), field: key.to_owned(), problem };
    match model {
        "no_vocab" | "none" => Ok(None),
        "gpt2" => byte_level::build(gguf, &Vocabulary::read(gguf)?.with_ends(ends)).map(Some),
        "llama" => sentence_piece::build(gguf, &Vocabulary::read(gguf)?.with_ends(ends)).map(Some),
        other => Err(wrong(format!("{other:?} is not supported; supported: gpt2, llama"))),
    }
}

/// An error about one metadata key of `gguf`.
fn metadata_error(gguf: &Gguf, field: &str, problem: impl Into<String>) -> TokenizerError {
    TokenizerError::Metadata { path: gguf.path().to_owned(), field: field.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_on_which_the_library_panics_is_an_error() {
        // A merge of a piece shorter than the prefix.
        let json = r###"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "##",
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}}"###;
        let message = from_json(Path::new("m/tokenizer.json"), json.as_bytes()).unwrap_err().to_string();
        assert!(message.contains("m/tokenizer.json") && message.contains("library fails"), "{message}");
    }
}

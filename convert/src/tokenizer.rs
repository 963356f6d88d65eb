//! Tokenizers, from `tokenizer.json` or from the metadata of a GGUF file.

mod added;
mod byte_level;
mod pre;
mod sentence_piece;
mod vocabulary;

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use crate::gguf::Gguf;
use vocabulary::Vocabulary;

/// A tokenizer that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// tokenizer.json is not one.
    #[error("{}: not a readable tokenizer: {problem}; fetch the file again", path.display())]
    Json {
        /// File.
        path: PathBuf,
        /// What the parser said.
        problem: String,
    },
    /// Metadata of a GGUF file that do not make a tokenizer.
    #[error("{}: `{field}`: {problem}", path.display())]
    Metadata {
        /// File.
        path: PathBuf,
        /// Metadata key.
        field: String,
        /// What is wrong.
        problem: String,
    },
}

/// Reads the contents of a `tokenizer.json`.
pub(crate) fn from_json(path: &Path, bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
    let unreadable = |problem: String| TokenizerError::Json { path: path.to_owned(), problem };
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| unreadable(error.to_string()))?;
    // Leftovers of training: a prompt is never cut or padded behind its writer's back.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| unreadable(error.to_string()))?;
    Ok(tokenizer)
}

/// Builds the tokenizer that a GGUF file describes; `None` where it describes none.
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

//! Vocabulary of a GGUF file: texts, token types, scores.

use tokenizers::models::bpe::Vocab;

use super::{TokenizerError, metadata_error};
use crate::generation::looks_like_control;
use crate::gguf::{Element, Gguf};

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Token type, as llama.cpp's `llama_token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    /// A piece that merges produce.
    Normal,
    /// Replacement of unknown text.
    Unknown,
    /// Control token, never shown: begin and end of text, roles.
    Control,
    /// Matched before splitting, and shown.
    UserDefined,
    /// Unused entry.
    Unused,
    /// One byte, `<0x0A>`.
    Byte,
}

/// Token texts by id, each with its type.
pub(super) struct Vocabulary<'a> {
    pub(super) texts: Vec<&'a str>,
    pub(super) kinds: Vec<TokenType>,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn read(gguf: &'a Gguf) -> Result<Self, TokenizerError> {
        let texts = texts(gguf, TOKENS)?;
        let kinds = match gguf.array(TYPES) {
            None => vec![TokenType::Normal; texts.len()],
            Some(values) => values.map(kind).collect::<Option<Vec<_>>>().ok_or_else(|| {
                metadata_error(gguf, TYPES, "it holds a type that is not one of 1 to 6; the file is damaged")
            })?,
        };
        if kinds.len() != texts.len() {
            let problem = format!("{} types for {} tokens; the file is damaged", kinds.len(), texts.len());
            return Err(metadata_error(gguf, TYPES, problem));
        }
        Ok(Self { texts, kinds })
    }

    /// The vocabulary with those of these tokens as control tokens that are ordinary ones and look like control tokens.
    pub(super) fn with_ends(mut self, ends: &[u32]) -> Self {
        for end in ends {
            let Some(text) = self.texts.get(*end as usize) else { continue };
            let Some(kind) = self.kinds.get_mut(*end as usize) else { continue };
            if matches!(kind, TokenType::Normal | TokenType::Unused) && looks_like_control(text) {
                *kind = TokenType::Control;
            }
        }
        self
    }

    /// Ids by text. A duplicate text keeps its first id, as in llama.cpp.
    pub(super) fn ids(&self) -> Vocab {
        let mut ids = Vocab::default();
        for (id, text) in (0u32..).zip(&self.texts) {
            ids.entry((*text).to_owned()).or_insert(id);
        }
        ids
    }

    /// Id and text of a metadata key such as `tokenizer.ggml.bos_token_id`. An id outside of the vocabulary counts as
    /// none; it is told when the model is opened, with the other defaults.
    pub(super) fn named(&self, gguf: &Gguf, key: &str) -> Option<(u32, &'a str)> {
        let id = u32::try_from(gguf.unsigned(key)?).ok()?;
        Some((id, self.texts.get(id as usize)?))
    }
}

/// A metadata array of strings.
pub(super) fn texts<'a>(gguf: &'a Gguf, key: &str) -> Result<Vec<&'a str>, TokenizerError> {
    let values = gguf.array(key).ok_or_else(|| metadata_error(gguf, key, "missing: the tokenizer needs it"))?;
    let texts: Option<Vec<&str>> = values.map(Element::as_text).collect();
    texts.ok_or_else(|| metadata_error(gguf, key, "not an array of strings"))
}

fn kind(value: Element<'_>) -> Option<TokenType> {
    Some(match value.as_unsigned()? {
        1 => TokenType::Normal,
        2 => TokenType::Unknown,
        3 => TokenType::Control,
        4 => TokenType::UserDefined,
        5 => TokenType::Unused,
        6 => TokenType::Byte,
        _ => return None,
    })
}

//! Parts common to both kinds of GGUF tokenizers: added tokens, and begin and end of text.

use tokenizers::processors::template::{SpecialToken, Template, TemplateProcessing};
use tokenizers::{AddedToken, Tokenizer};

use super::vocabulary::{TokenType, Vocabulary};
use super::{TokenizerError, metadata_error};
use crate::gguf::Gguf;

const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// Defaults of `add_bos_token` and `add_eos_token`.
pub(super) struct AddDefaults {
    pub(super) bos: bool,
    pub(super) eos: bool,
}

/// Adds control, unknown and user-defined tokens. Only the last are shown when decoding without special tokens.
pub(super) fn add_atoms(tokenizer: &mut Tokenizer, vocabulary: &Vocabulary<'_>) {
    for (text, kind) in vocabulary.texts.iter().zip(&vocabulary.kinds) {
        if text.is_empty() {
            continue;
        }
        match kind {
            TokenType::Control | TokenType::Unknown => {
                tokenizer.add_special_tokens(&[AddedToken::from(*text, true).normalized(false)]);
            }
            TokenType::UserDefined => {
                tokenizer.add_tokens(&[AddedToken::from(*text, false).normalized(false)]);
            }
            TokenType::Normal | TokenType::Unused | TokenType::Byte => {}
        }
    }
}

/// Adds begin and end of text when encoding with special tokens.
pub(super) fn add_ends(
    tokenizer: &mut Tokenizer,
    gguf: &Gguf,
    vocabulary: &Vocabulary<'_>,
    default: &AddDefaults,
) -> Result<(), TokenizerError> {
    let bos = vocabulary.named(gguf, "tokenizer.ggml.bos_token_id");
    let eos = vocabulary.named(gguf, "tokenizer.ggml.eos_token_id");
    let bos = bos.filter(|_| gguf.flag(ADD_BOS).unwrap_or(default.bos));
    let eos = eos.filter(|_| gguf.flag(ADD_EOS).unwrap_or(default.eos));
    if bos.is_none() && eos.is_none() {
        return Ok(());
    }
    let bad = |problem: String| metadata_error(gguf, ADD_BOS, problem);
    // Names of the two within the template, whatever their texts.
    let around = |first: &str, second: Option<&str>| {
        let pieces = bos.map(|_| "bos:0").into_iter().chain([first]).chain(second).chain(eos.map(|_| "eos:0"));
        Template::try_from(pieces.map(str::to_owned).collect::<Vec<_>>())
    };
    let tokens: Vec<SpecialToken> = [("bos", bos), ("eos", eos)]
        .into_iter()
        .filter_map(|(name, token)| Some((name, token?)))
        .map(|(name, (id, text))| SpecialToken::new(name.to_owned(), vec![id], vec![text.to_owned()]))
        .collect::<Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    let template = TemplateProcessing::builder()
        .single(around("$A:0", None).map_err(bad)?)
        .pair(around("$A:0", Some("$B:0")).map_err(bad)?)
        .special_tokens(tokens)
        .build()
        .map_err(|error| bad(error.to_string()))?;
    tokenizer.with_post_processor(Some(template));
    Ok(())
}

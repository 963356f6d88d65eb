//! Pre-tokenizers: splitting of text before byte-level merging, by `tokenizer.ggml.pre`.
//!
//! The expressions are those of each model's own tokenizer.json; llama.cpp has the same ones in `llama-vocab.cpp`.

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior::Isolated;

/// A pre-tokenizer and related settings.
pub(super) struct Pre {
    pub(super) cut: PreTokenizerWrapper,
    /// Whether text is NFC-normalised first.
    pub(super) nfc: bool,
    /// Whether a word that is a token stays whole even if no merges lead to it.
    pub(super) ignore_merges: bool,
    /// Default of `add_bos_token`.
    pub(super) bos: bool,
}

pub(super) const SUPPORTED: &str = "default, gpt-2, llama-bpe, qwen2, smollm";

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
/// llama.cpp's default for files that do not name one.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"];

/// The pre-tokenizer of that name; `Ok(None)` if unknown.
pub(super) fn named(name: &str) -> tokenizers::Result<Option<Pre>> {
    let plain = |cut| Pre { cut, nfc: false, ignore_merges: false, bos: false };
    Ok(Some(match name {
        "smollm" => plain(sequence([Digits::new(true).into(), ByteLevel::new(false, true, true).into()])),
        "gpt-2" | "gpt2" => plain(ByteLevel::new(false, true, true).into()),
        "llama-bpe" | "llama3" | "llama-v3" => Pre { ignore_merges: true, bos: true, ..plain(splits(&[LLAMA3])?) },
        "qwen2" => Pre { nfc: true, ..plain(splits(&[QWEN2])?) },
        "default" => plain(splits(&DEFAULT)?),
        _ => return Ok(None),
    }))
}

/// One split after another, each within the pieces of the one before; then bytes become letters.
fn splits(expressions: &[&str]) -> tokenizers::Result<PreTokenizerWrapper> {
    let split = |expression: &&str| {
        Split::new(SplitPattern::Regex((*expression).to_owned()), Isolated, false).map(PreTokenizerWrapper::from)
    };
    let mut steps = expressions.iter().map(split).collect::<tokenizers::Result<Vec<_>>>()?;
    steps.push(ByteLevel::new(false, true, false).into());
    Ok(Sequence::new(steps).into())
}

fn sequence(steps: [PreTokenizerWrapper; 2]) -> PreTokenizerWrapper {
    Sequence::new(steps.into()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    fn cut(name: &str, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        named(name).unwrap().unwrap().cut.pre_tokenize(&mut pieces).unwrap();
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        pieces.into_iter().map(|(piece, _, _)| piece.replace('Ġ', "_").replace('Ċ', "/")).collect()
    }

    #[test]
    fn each_way_cuts_as_its_model_was_trained() {
        let text = "It's 2024,  ok\n";
        assert_eq!(cut("gpt-2", text), ["It", "'s", "_2024", ",", "_", "_ok", "/"]);
        assert_eq!(cut("smollm", text), ["It", "'s", "_", "2", "0", "2", "4", ",", "_", "_ok", "/"]);
        assert_eq!(cut("llama-bpe", text), ["It", "'s", "_", "202", "4", ",", "_", "_ok", "/"]);
        assert_eq!(cut("qwen2", text), ["It", "'s", "_", "2", "0", "2", "4", ",", "_", "_ok", "/"]);
        assert_eq!(cut("default", text), ["It", "'", "s", "_", "202", "4", ",", "_", "_ok", "/"]);
    }

    #[test]
    fn contractions_in_capitals_are_cut_by_the_newer_ways_only() {
        assert_eq!(cut("gpt-2", "IT'S"), ["IT", "'", "S"]);
        assert_eq!(cut("llama-bpe", "IT'S"), ["IT", "'S"]);
    }

    #[test]
    fn an_unknown_way_is_none() {
        assert!(named("viking").unwrap().is_none());
    }
}

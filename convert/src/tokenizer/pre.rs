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

pub(super) const SUPPORTED: &str = "default, gpt-2, phi-2, olmo, exaone4, mpt, smollm, starcoder, refact, command-r, exaone, \
    codeshell, llama-bpe, falcon3, lfm2, pixtral, midm-2.0, dbrx, smaug-bpe, glm4, chatglm-bpe, qwen2, deepseek-r1-qwen, \
    stablelm2, megrez, hunyuan, qwen35, tekken, gpt-4o, seed-coder, hunyuan-dense, deepseek-v3";

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
/// Marks belong to letters.
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words are cut before capitals that follow small letters.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Numbers, then Chinese and Japanese, then the rest.
const DEEPSEEK3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];
/// llama.cpp's default for files that do not name one.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"];

/// The pre-tokenizer of that name; `Ok(None)` if unknown.
pub(super) fn named(name: &str) -> tokenizers::Result<Option<Pre>> {
    let plain = |cut| Pre { cut, nfc: false, ignore_merges: false, bos: false };
    Ok(Some(match name {
        "smollm" | "starcoder" | "refact" | "command-r" | "exaone" | "codeshell" => {
            plain(sequence([Digits::new(true).into(), ByteLevel::new(false, true, true).into()]))
        }
        "gpt-2" | "gpt2" | "phi-2" | "olmo" | "exaone4" | "mpt" => plain(ByteLevel::new(false, true, true).into()),
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "lfm2" | "pixtral" | "midm-2.0" => {
            Pre { ignore_merges: true, bos: true, ..plain(splits(&[LLAMA3])?) }
        }
        "glm4" => Pre { ignore_merges: true, ..plain(splits(&[LLAMA3])?) },
        "dbrx" | "smaug-bpe" | "chatglm-bpe" => plain(splits(&[LLAMA3])?),
        "qwen2" => Pre { nfc: true, ..plain(splits(&[QWEN2])?) },
        "deepseek-r1-qwen" | "stablelm2" | "megrez" | "hunyuan" => plain(splits(&[QWEN2])?),
        "qwen35" => plain(splits(&[QWEN35])?),
        "tekken" => Pre { ignore_merges: true, bos: true, ..plain(splits(&[TEKKEN])?) },
        "gpt-4o" => plain(splits(&[GPT4O])?),
        "seed-coder" => plain(splits(&[SEED])?),
        "hunyuan-dense" | "deepseek-v3" => plain(splits(&DEEPSEEK3)?),
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
    fn newer_ways_cut_at_capitals_marks_and_scripts() {
        let text = "camelCase's 2024";
        assert_eq!(cut("tekken", text), ["camel", "Case", "'s", "_", "2", "0", "2", "4"]);
        assert_eq!(cut("gpt-4o", text), ["camel", "Case's", "_", "202", "4"]);
        assert_eq!(cut("seed-coder", "a!!\n1"), ["a", "!!", "/", "1"]);
        assert_eq!(cut("qwen2", "a!!\n1"), ["a", "!!/", "1"]);
        assert_eq!(cut("hunyuan-dense", "ab漢字1234").len(), 4);
        assert_eq!(cut("qwen2", "क्ष").len(), 2);
        assert_eq!(cut("qwen35", "क्ष").len(), 1);
    }

    #[test]
    fn every_supported_way_can_be_built() {
        for name in SUPPORTED.split(", ") {
            assert!(named(name).unwrap().is_some(), "{name}");
        }
        assert!(named("glm4").unwrap().unwrap().ignore_merges && !named("dbrx").unwrap().unwrap().ignore_merges);
        let normalised = |name: &str| named(name).unwrap().unwrap().nfc;
        assert!(normalised("qwen2") && !normalised("qwen35"));
        assert!(named("tekken").unwrap().unwrap().bos && !named("glm4").unwrap().unwrap().bos);
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

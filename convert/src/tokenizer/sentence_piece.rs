//! `llama`: SentencePiece BPE. The file has scores instead of merges, and byte tokens as fallback.

use std::cmp::Reverse;

use tokenizers::Tokenizer;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::utils::Sequence as Normalizers;

use super::added::{AddDefaults, add_atoms, add_ends};
use super::vocabulary::{TokenType, Vocabulary};
use super::{TokenizerError, metadata_error};
use crate::gguf::{Element, Gguf};

const SCORES: &str = "tokenizer.ggml.scores";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const SPACE: &str = "\u{2581}";
/// SentencePiece's own limit on the length of a piece is 16; some vocabularies have runs of 64 spaces.
const PIECE_CHARS_MAX: usize = 256;

pub(super) fn build(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Tokenizer, TokenizerError> {
    let bad = |error: tokenizers::Error| metadata_error(gguf, SCORES, error.to_string());
    let ids = vocabulary.ids();
    let merges = merges(vocabulary, &scores(gguf, vocabulary)?, &ids);
    let mut model = BPE::builder().vocab_and_merges(ids, merges).byte_fallback(true).fuse_unk(true);
    if let Some((_, text)) = vocabulary.named(gguf, UNKNOWN) {
        model = model.unk_token(text.to_owned());
    }
    let mut tokenizer = Tokenizer::new(model.build().map_err(bad)?);

    let prefix = gguf.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let spaces: NormalizerWrapper = Replace::new(" ", SPACE).map_err(bad)?.into();
    let first: NormalizerWrapper = Prepend::new(SPACE.to_owned()).into();
    let normalizers = if prefix { vec![first, spaces] } else { vec![spaces] };
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)));

    let spaces: DecoderWrapper = Replace::new(SPACE, " ").map_err(bad)?.into();
    let mut decoders = vec![spaces, ByteFallback::default().into(), Fuse::default().into()];
    if prefix {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    add_atoms(&mut tokenizer, vocabulary);
    add_ends(&mut tokenizer, gguf, vocabulary, &AddDefaults { bos: true, eos: false })?;
    Ok(tokenizer)
}

fn scores(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Vec<f64>, TokenizerError> {
    let values = gguf.array(SCORES).ok_or_else(|| metadata_error(gguf, SCORES, "missing: the tokenizer needs it"))?;
    let scores: Vec<f64> = values.filter_map(Element::as_float).filter(|score| !score.is_nan()).collect();
    if scores.len() != vocabulary.texts.len() {
        let problem = format!("{} scores for {} tokens; the file is damaged", scores.len(), vocabulary.texts.len());
        return Err(metadata_error(gguf, SCORES, problem));
    }
    Ok(scores)
}

/// Merges in order of rank, derived like in transformers' converter: one merge for every split of a piece into two,
/// higher scores first, then longer left parts, then longer right ones.
fn merges(vocabulary: &Vocabulary<'_>, scores: &[f64], ids: &Vocab) -> Merges {
    let mut found = Vec::new();
    for ((piece, kind), score) in vocabulary.texts.iter().zip(&vocabulary.kinds).zip(scores) {
        if !matches!(kind, TokenType::Normal | TokenType::Unused) || piece.chars().count() > PIECE_CHARS_MAX {
            continue;
        }
        let mut ways: Vec<_> = piece
            .char_indices()
            .skip(1)
            .map(|(at, _)| piece.split_at(at))
            .filter_map(|(left, right)| Some((ids.get(left)?, ids.get(right)?, left, right)))
            .collect();
        ways.sort();
        found.extend(ways.into_iter().map(|(_, _, left, right)| (*score, left, right)));
    }
    let length = |part: &str| Reverse(part.chars().count());
    found.sort_by(|a, b| {
        let by_score = b.0.total_cmp(&a.0);
        by_score.then_with(|| (length(a.1), length(a.2)).cmp(&(length(b.1), length(b.2))))
    });
    found.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_follow_scores_and_then_length() {
        let texts = vec!["a", "b", "c", "ab", "bc", "abc"];
        let vocabulary = Vocabulary { kinds: vec![TokenType::Normal; texts.len()], texts };
        let merges = merges(&vocabulary, &[0.0, 0.0, 0.0, -2.0, -1.0, -3.0], &vocabulary.ids());
        let merges: Vec<_> = merges.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect();
        assert_eq!(merges, [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]);
    }
}

//! `gpt2`: byte-level BPE.

use tokenizers::Tokenizer;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::unicode::NFC;

use super::added::{AddDefaults, add_atoms, add_ends};
use super::vocabulary::{self, Vocabulary};
use super::{TokenizerError, metadata_error, pre};
use crate::gguf::Gguf;

const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";

pub(super) fn build(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Tokenizer, TokenizerError> {
    let name = gguf.text(PRE).unwrap_or("default");
    let pre = pre::named(name).map_err(|error| metadata_error(gguf, PRE, error.to_string()))?.ok_or_else(|| {
        metadata_error(gguf, PRE, format!("{name:?} is not supported; supported: {}", pre::SUPPORTED))
    })?;
    let merges = vocabulary::texts(gguf, MERGES)?.into_iter().map(|merge| pair(gguf, merge));
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.ids(), merges.collect::<Result<Vec<_>, _>>()?)
        .ignore_merges(pre.ignore_merges)
        .build()
        .map_err(|error| metadata_error(gguf, MERGES, format!("{error}; the file is damaged")))?;

    let mut tokenizer = Tokenizer::new(model);
    if pre.nfc {
        tokenizer.with_normalizer(Some(NFC));
    }
    tokenizer.with_pre_tokenizer(Some(pre.cut));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    add_atoms(&mut tokenizer, vocabulary);
    add_ends(&mut tokenizer, gguf, vocabulary, &AddDefaults { bos: pre.bos, eos: false })?;
    Ok(tokenizer)
}

/// Parses `left right`. A space as first letter belongs to the left part.
fn pair(gguf: &Gguf, merge: &str) -> Result<(String, String), TokenizerError> {
    let at = merge.char_indices().skip(1).find(|(_, letter)| *letter == ' ').map(|(at, _)| at);
    let at =
        at.ok_or_else(|| metadata_error(gguf, MERGES, format!("{merge:?} is not two parts with a space between")))?;
    Ok((merge[..at].to_owned(), merge[at + 1..].to_owned()))
}

//! The bytes that each token stands for.
//!
//! Decoding text from bytes is simpler and more exact than decoding strings: a token may hold a part of a character,
//! and only the bytes of its neighbours complete it.

use tokenizers::{DecoderWrapper, Tokenizer};

/// Bytes of every token of a vocabulary; special tokens have none.
#[derive(Debug)]
pub struct TokenBytes {
    bytes: Vec<Box<[u8]>>,
    /// SentencePiece puts a space before the first word; the text has none there.
    strips_first_space: bool,
}

impl TokenBytes {
    /// Those of `tokenizer`.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let byte_level = is_byte_level(tokenizer);
        let unmapped = byte_level.then(byte_level_alphabet);
        let added = tokenizer.get_added_tokens_decoder();
        let count = tokenizer.get_vocab_size(true) as u32;
        let last = added.keys().copied().max().map_or(count, |last| count.max(last + 1));
        let bytes = (0..last)
            .map(|id| match added.get(&id) {
                Some(token) if token.special => Box::default(),
                Some(token) => token.content.as_bytes().into(),
                None => {
                    let token = tokenizer.id_to_token(id).unwrap_or_default();
                    unmapped.as_ref().map_or_else(|| sentence_piece(&token), |map| map.bytes(&token))
                }
            })
            .collect();
        Self { bytes, strips_first_space: !byte_level }
    }

    #[cfg(test)]
    pub(super) fn of(tokens: &[&[u8]]) -> Self {
        Self { bytes: tokens.iter().map(|&bytes| bytes.into()).collect(), strips_first_space: false }
    }

    /// Bytes of token `id`; none for special tokens and ids beyond the vocabulary.
    pub fn get(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// Bytes of token `id` at the beginning of a text.
    pub fn first(&self, id: u32) -> &[u8] {
        let bytes = self.get(id);
        if self.strips_first_space { bytes.strip_prefix(b" ").unwrap_or(bytes) } else { bytes }
    }
}

fn is_byte_level(tokenizer: &Tokenizer) -> bool {
    match tokenizer.get_decoder() {
        Some(DecoderWrapper::ByteLevel(_)) => true,
        Some(DecoderWrapper::Sequence(sequence)) => {
            sequence.get_decoders().iter().any(|decoder| matches!(decoder, DecoderWrapper::ByteLevel(_)))
        }
        _ => false,
    }
}

/// The alphabet of byte-level BPE, backwards: character to byte.
struct Alphabet(Vec<u8>);

/// GPT-2's table: printable bytes are themselves, the others follow from U+0100 on.
fn byte_level_alphabet() -> Alphabet {
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut map = vec![0; 512];
    let mut next = 256;
    for byte in 0..=255u8 {
        if printable(byte) {
            map[byte as usize] = byte;
        } else {
            map[next] = byte;
            next += 1;
        }
    }
    Alphabet(map)
}

impl Alphabet {
    fn bytes(&self, token: &str) -> Box<[u8]> {
        token.chars().map(|c| self.0.get(c as usize).copied().unwrap_or(b'?')).collect()
    }
}

/// `▁` is a space, `<0x0A>` a byte, and everything else itself.
fn sentence_piece(token: &str) -> Box<[u8]> {
    let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    if let Some(byte) = byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        return [byte].into();
    }
    token.replace('\u{2581}', " ").into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_level_tokens_become_their_bytes() {
        let map = byte_level_alphabet();
        assert_eq!(&*map.bytes("Ġhello"), b" hello");
        assert_eq!(&*map.bytes("Ċ"), b"\n");
        assert_eq!(&*map.bytes("Ã©"), "é".as_bytes());
    }

    #[test]
    fn sentence_pieces_become_their_bytes() {
        assert_eq!(&*sentence_piece("▁hello"), b" hello");
        assert_eq!(&*sentence_piece("<0xE2>"), [0xe2]);
        assert_eq!(&*sentence_piece("<s"), b"<s");
    }
}

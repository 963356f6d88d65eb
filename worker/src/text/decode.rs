//! Decoding: the bytes that each token adds to a text in progress.
//!
//! A decoder is made for whole texts; for instance, it drops the space before the first word. An answer continues a
//! text, so a token's bytes are what it adds between two other tokens, according to the decoder itself. Byte-level
//! tokens (byte-level letters, `<0x0A>`) are decoded to bytes directly, because a character may need several tokens.

use tokenizers::{Decoder as _, DecoderWrapper, Tokenizer};

/// A token before, and one after: any plain words.
const BEFORE: &str = "a";
const AFTER: &str = "b";

/// Decodes single tokens to bytes.
pub(super) struct Decoding<'t> {
    tokenizer: &'t Tokenizer,
    /// Byte of each letter of byte-level tokens.
    alphabet: Option<Vec<Option<u8>>>,
    byte_fallback: bool,
    /// Text of the token after.
    tail: String,
}

impl<'t> Decoding<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        let decoder = tokenizer.get_decoder();
        let has = |test: &dyn Fn(&DecoderWrapper) -> bool| decoder.is_some_and(|decoder| any(decoder, test));
        let alphabet = has(&|decoder| matches!(decoder, DecoderWrapper::ByteLevel(_))).then(byte_level_alphabet);
        let byte_fallback = has(&|decoder| matches!(decoder, DecoderWrapper::ByteFallback(_)));
        let mut decoding = Self { tokenizer, alphabet, byte_fallback, tail: String::new() };
        let both = decoding.text(&[BEFORE, AFTER]).unwrap_or_default();
        both.strip_prefix(BEFORE).unwrap_or(AFTER).clone_into(&mut decoding.tail);
        decoding
    }

    /// Bytes of a token of the vocabulary.
    pub(super) fn bytes(&self, token: &str) -> Box<[u8]> {
        if let Some(alphabet) = &self.alphabet {
            let letters = token.chars().map(|letter| alphabet.get(letter as usize).copied().flatten());
            // As in tokenizers, a token with other letters stands for itself.
            return letters.collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec()).into();
        }
        if let Some(byte) = byte(token).filter(|_| self.byte_fallback) {
            return [byte].into();
        }
        self.share(token).unwrap_or_else(|| token.to_owned()).into_bytes().into()
    }

    /// Bytes of an added token that is shown.
    pub(super) fn added(&self, content: &str) -> Box<[u8]> {
        if self.alphabet.is_some() {
            return content.as_bytes().into();
        }
        self.share(content).unwrap_or_else(|| content.to_owned()).into_bytes().into()
    }

    fn share(&self, token: &str) -> Option<String> {
        let whole = self.text(&[BEFORE, token, AFTER])?;
        Some(whole.strip_prefix(BEFORE)?.strip_suffix(self.tail.as_str())?.to_owned())
    }

    fn text(&self, tokens: &[&str]) -> Option<String> {
        let tokens: Vec<String> = tokens.iter().map(|&token| token.to_owned()).collect();
        match self.tokenizer.get_decoder() {
            Some(decoder) => decoder.decode(tokens).ok(),
            None => Some(tokens.join(" ")),
        }
    }
}

fn any(decoder: &DecoderWrapper, test: &dyn Fn(&DecoderWrapper) -> bool) -> bool {
    match decoder {
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(|decoder| any(decoder, test)),
        decoder => test(decoder),
    }
}

/// Parses `<0x0A>` as a byte.
fn byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>').filter(|hex| hex.len() == 2)?;
    u8::from_str_radix(hex, 16).ok()
}

/// GPT-2's table reversed: printable bytes are themselves, the others follow from U+0100 on.
fn byte_level_alphabet() -> Vec<Option<u8>> {
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut map = vec![None; 512];
    let mut next = 256;
    for byte in 0..=255u8 {
        if printable(byte) {
            map[byte as usize] = Some(byte);
        } else {
            map[next] = Some(byte);
            next += 1;
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(decoder: &str, token: &str) -> String {
        let json = format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
                "pre_tokenizer": null, "post_processor": null, "decoder": {decoder},
                "model": {{"type": "WordLevel", "vocab": {{"x": 0}}, "unk_token": "x"}}}}"#
        );
        let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        String::from_utf8_lossy(&Decoding::new(&tokenizer).bytes(token)).into_owned()
    }

    #[test]
    fn a_token_is_what_it_adds_whatever_the_decoder() {
        let replace = r#"{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}"#;
        let strip = r#"{"type": "Strip", "content": " ", "start": 1, "stop": 0}"#;
        let metaspace = |scheme: &str| {
            format!(r#"{{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "{scheme}", "split": true}}"#)
        };
        let sequence = |decoders: &[&str]| format!(r#"{{"type": "Sequence", "decoders": [{}]}}"#, decoders.join(", "));
        let fallback = sequence(&[replace, r#"{"type": "ByteFallback"}"#, r#"{"type": "Fuse"}"#, strip]);
        let word_piece = r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###;
        let byte_level = r#"{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}"#;
        let suffixed = r#"{"type": "BPEDecoder", "suffix": "</w>"}"#;
        let cases: [(&str, &str, &str); 20] = [
            (&fallback, "▁Paris", " Paris"),
            (&fallback, "Paris", "Paris"),
            (&fallback, "▁", " "),
            (&fallback, "<0x0A>", "\n"),
            (&sequence(&[replace, r#"{"type": "Fuse"}"#]), "▁Paris", " Paris"),
            (&sequence(&[replace, r#"{"type": "Fuse"}"#]), "<0x0A>", "<0x0A>"),
            (&sequence(&[replace, strip, r#"{"type": "Fuse"}"#]), "▁▁Paris", " Paris"),
            (&metaspace("always"), "▁Paris", " Paris"),
            (&metaspace("first"), "▁Paris", " Paris"),
            (&metaspace("never"), "▁Paris", " Paris"),
            (&metaspace("always"), "Paris", "Paris"),
            (word_piece, "paris", " paris"),
            (word_piece, "##is", "is"),
            (word_piece, ".", "."),
            (byte_level, "ĠParis", " Paris"),
            (byte_level, "Ã©", "é"),
            (byte_level, "日本", "日本"),
            (suffixed, "paris</w>", "paris "),
            (suffixed, "par", "par"),
            ("null", "paris", " paris"),
        ];
        for (decoder, token, expected) in cases {
            assert_eq!(bytes(decoder, token), expected, "{token} by {decoder}");
        }
    }
}

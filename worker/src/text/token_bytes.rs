//! Bytes of tokens.
//!
//! Decoding by bytes is simpler and more exact than by strings: a token may contain a part of a character that only its
//! neighbours complete.

use tokenizers::Tokenizer;

use super::{Specials, decode::Decoding};

/// Bytes of every token of a vocabulary.
#[derive(Debug)]
pub struct TokenBytes {
    tokens: Vec<Token>,
    specials: Specials,
}

#[derive(Debug, Default)]
struct Token {
    bytes: Box<[u8]>,
    /// Whether it is a control token, whose text is not part of an answer.
    special: bool,
}

impl TokenBytes {
    /// Bytes of all tokens of `tokenizer`. `ends` end an answer and are not part of it, even if the tokenizer does not
    /// mark them as special.
    pub fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Self {
        let decoding = Decoding::new(tokenizer);
        let added = tokenizer.get_added_tokens_decoder();
        let count = tokenizer.get_vocab_size(true) as u32;
        let last = added.keys().copied().max().map_or(count, |last| count.max(last + 1));
        let mut tokens: Vec<Token> = (0..last)
            .map(|id| match added.get(&id) {
                Some(token) if token.special => Token { bytes: token.content.as_bytes().into(), special: true },
                Some(token) => Token { bytes: decoding.added(&token.content), special: false },
                None => {
                    let token = tokenizer.id_to_token(id).unwrap_or_default();
                    Token { bytes: decoding.bytes(&token), special: false }
                }
            })
            .collect();
        for end in ends {
            if let Some(token) = tokens.get_mut(*end as usize) {
                token.special = true;
            }
        }
        Self { tokens, specials: Specials::new(tokenizer) }
    }

    #[cfg(test)]
    pub(crate) fn of(tokens: &[&[u8]], specials: &[&str]) -> Self {
        use tokenizers::{AddedToken, models::bpe::BPE};
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.add_special_tokens(&specials.iter().map(|&text| AddedToken::from(text, true)).collect::<Vec<_>>());
        let special = |bytes: &[u8]| specials.iter().any(|text| text.as_bytes() == bytes);
        let tokens = tokens.iter().map(|&bytes| Token { bytes: bytes.into(), special: special(bytes) }).collect();
        Self { tokens, specials: Specials::new(&tokenizer) }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Bytes of token `id`, or text of a control token; empty beyond the vocabulary.
    pub fn get(&self, id: u32) -> &[u8] {
        self.tokens.get(id as usize).map_or(&[], |token| &token.bytes)
    }

    /// Whether token `id` is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.tokens.get(id as usize).is_some_and(|token| token.special)
    }

    /// The control token of this text.
    pub fn control(&self, text: &str) -> Option<u32> {
        let token = self.specials.tokens().iter().find(|(_, token)| token.content == text);
        token.map(|(id, _)| *id).filter(|id| self.is_special(*id))
    }

    /// Text of these tokens, control tokens by their names.
    pub fn text(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.get(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The control tokens.
    pub fn specials(&self) -> &Specials {
        &self.specials
    }
}

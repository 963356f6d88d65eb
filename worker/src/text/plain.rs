//! Tokenising text in which only certain control tokens are control tokens.
//!
//! The tokenizer gets the control tokens that count under secret names, while the tokens' texts are plain text to it,
//! in whatever letters its normalizer would accept them. A conversation is encoded as one text, so that text between
//! two control tokens is split as usual.

use std::collections::{HashMap, HashSet};

use tokenizers::{AddedToken, Tokenizer};

use super::Specials;

/// Noncharacters at both ends of a secret name.
const OPEN: char = '\u{fdd0}';
const CLOSE: char = '\u{fdef}';

/// A tokenizer that treats control tokens as plain text, except under their secret names.
#[derive(Debug)]
pub(super) struct PlainTokenizer {
    tokenizer: Tokenizer,
    /// Secret name of each control token, in the order of [`Specials::tokens`].
    names: Vec<String>,
    /// From ids of secret names to ids of control tokens.
    ids: HashMap<u32, u32>,
    /// Control tokens whose text the model's own vocabulary has, spelled in single letters.
    spelled: HashMap<u32, Vec<u32>>,
}

impl PlainTokenizer {
    pub(super) fn new(tokenizer: &Tokenizer, specials: &Specials) -> Self {
        let mut tokenizer = tokenizer.clone();
        let unmarked = specials.tokens().iter().filter(|(_, token)| !token.special);
        let marked: Vec<AddedToken> = unmarked.map(|(_, token)| token.clone().special(true)).collect();
        tokenizer.add_special_tokens(&marked);
        tokenizer.set_encode_special_tokens(true);
        let secret: u128 = rand::random();
        // A letter at the end, for normalizers that drop noncharacters: no name begins another.
        let name = |id: u32| format!("{OPEN}{secret:032x}:{id}z{CLOSE}");
        let names: Vec<String> = specials.tokens().iter().map(|(id, _)| name(*id)).collect();
        let renamed = specials.tokens().iter().zip(&names).map(|((_, token), name)| {
            let plain = AddedToken::from(name.as_str(), false).normalized(token.normalized);
            plain.single_word(token.single_word).lstrip(token.lstrip).rstrip(token.rstrip)
        });
        tokenizer.add_tokens(&renamed.collect::<Vec<_>>());
        let added = specials.tokens().iter().zip(&names);
        let ids = added.filter_map(|((id, _), name)| Some((tokenizer.token_to_id(name)?, *id))).collect();
        let spelled = spelled(&tokenizer, specials);
        Self { tokenizer, names, ids, spelled }
    }

    /// Secret name of a control token, by its index.
    pub(super) fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    /// Tokens of a text in which control tokens have secret names.
    pub(super) fn encode(&self, text: &str, add_special_tokens: bool) -> tokenizers::Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, add_special_tokens)?;
        let mut ids = Vec::with_capacity(encoding.len());
        // Marked are the tokens that the tokenizer itself puts around a text.
        for (id, around) in encoding.get_ids().iter().zip(encoding.get_special_tokens_mask()) {
            match self.spelled.get(id) {
                Some(letters) if *around == 0 => ids.extend_from_slice(letters),
                _ => ids.push(self.ids.get(id).copied().unwrap_or(*id)),
            }
        }
        Ok(ids)
    }
}

/// Some models find a control token's text in their vocabulary without merges. Such a token is spelled.
fn spelled(tokenizer: &Tokenizer, specials: &Specials) -> HashMap<u32, Vec<u32>> {
    let control: HashSet<u32> = specials.tokens().iter().map(|(id, _)| *id).collect();
    let ids = |text: &str| tokenizer.encode_fast(text, false).map(|found| found.get_ids().to_vec()).unwrap_or_default();
    let mut spelled = HashMap::new();
    for (id, token) in specials.tokens() {
        if ids(&token.content).contains(id) {
            let letters = token.content.chars().flat_map(|letter| ids(letter.encode_utf8(&mut [0; 4])));
            spelled.insert(*id, letters.filter(|id| !control.contains(id)).collect());
        }
    }
    spelled
}

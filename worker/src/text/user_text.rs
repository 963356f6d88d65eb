//! Protection against forged control tokens in messages.
//!
//! A message with the text of a control token (`<|im_end|>`) must not become that token, or its author could end the
//! turn and open a system turn. A template mixes its own control tokens with message text, so the two are separated
//! before rendering: a mark breaks every control token in a message. The template then renders as usual; trimming,
//! escaping and comparisons see the text, except for marks in forged tokens. Unbroken control tokens in the result are
//! the template's own.
//!
//! The tokenizer then gets the result with each of the template's own tokens under a secret name, while the tokens'
//! texts are plain text to it. The conversation is encoded as one text, so that text between two control tokens is
//! split as usual.
//!
//! Conversations without such text, nearly all, skip this: there is nothing to mark, and the tokenizer is used as it
//! is.

use std::collections::HashMap;

use slm_convert::chat::ChatMessage;
use tokenizers::{AddedToken, Tokenizer};

use super::Specials;

/// Noncharacter code points, which no real text contains.
const MARKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// A tokenizer that treats control tokens as plain text, except under their secret names.
#[derive(Debug)]
pub(super) struct PlainTokenizer {
    tokenizer: Tokenizer,
    /// Secret name and id of each control token, in the order of [`Specials::tokens`].
    names: Vec<(String, u32)>,
    /// From ids of secret names to ids of control tokens.
    ids: HashMap<u32, u32>,
}

impl PlainTokenizer {
    pub(super) fn new(tokenizer: &Tokenizer, specials: &Specials) -> Self {
        let mut tokenizer = tokenizer.clone();
        tokenizer.set_encode_special_tokens(true);
        let secret: u128 = rand::random();
        let (open, close) = (MARKS.start(), MARKS.end());
        let name = |id: u32| format!("{open}{secret:032x}:{id}{close}");
        let names: Vec<_> = specials.tokens().iter().map(|(id, _)| (name(*id), *id)).collect();
        let renamed = specials.tokens().iter().zip(&names).map(|((_, token), (name, _))| {
            let plain = AddedToken::from(name.as_str(), false).normalized(false);
            plain.single_word(token.single_word).lstrip(token.lstrip).rstrip(token.rstrip)
        });
        tokenizer.add_tokens(&renamed.collect::<Vec<_>>());
        let ids = names.iter().filter_map(|(name, id)| Some((tokenizer.token_to_id(name)?, *id))).collect();
        Self { tokenizer, names, ids }
    }

    /// Tokens of a text without control tokens.
    pub(super) fn encode(&self, text: &str, add_special_tokens: bool) -> tokenizers::Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, add_special_tokens)?;
        Ok(encoding.get_ids().iter().map(|id| self.ids.get(id).copied().unwrap_or(*id)).collect())
    }

    /// Tokens of a rendered conversation with marked messages.
    pub(super) fn encode_marked(&self, text: &str, mark: char, specials: &Specials) -> tokenizers::Result<Vec<u32>> {
        let named = specials.replaced(text, |at| self.names[at].0.clone());
        let unmarked: String = named.chars().filter(|letter| *letter != mark).collect();
        self.encode(&unmarked, false)
    }
}

/// The conversation with a mark in every forged control token, and the mark; `None` if there is none.
pub(super) fn marked(messages: &[ChatMessage], specials: &Specials) -> Option<(Vec<ChatMessage>, char)> {
    let places: Vec<[Vec<usize>; 3]> = messages
        .iter()
        .map(|message| {
            let of = |text: &str| specials.places_in(text);
            [of(&message.role), of(&message.content), message.name.as_deref().map(of).unwrap_or_default()]
        })
        .collect();
    if places.iter().flatten().all(Vec::is_empty) {
        return None;
    }
    let mark = unused_mark(messages);
    let marked = messages.iter().zip(places).map(|(message, [role, content, name])| ChatMessage {
        role: with_marks(&message.role, &role, mark),
        content: with_marks(&message.content, &content, mark),
        name: message.name.as_deref().map(|text| with_marks(text, &name, mark)),
    });
    Some((marked.collect(), mark))
}

/// `text` with `mark` after the first letter at each place.
fn with_marks(text: &str, places: &[usize], mark: char) -> String {
    let mut out = String::with_capacity(text.len() + places.len() * mark.len_utf8());
    let mut done = 0;
    for place in places {
        let first = text[*place..].chars().next().map_or(0, char::len_utf8);
        out.push_str(&text[done..place + first]);
        out.push(mark);
        done = place + first;
    }
    out.push_str(&text[done..]);
    out
}

/// A mark that occurs in no message, and not around secret names. If all occur, their author loses the last one and
/// gains nothing.
fn unused_mark(messages: &[ChatMessage]) -> char {
    let own = |mark: &char| *mark == *MARKS.start() || *mark == *MARKS.end();
    let used = |mark: &char| messages.iter().any(|message| message.content.contains(*mark));
    MARKS.filter(|mark| !own(mark)).find(|mark| !used(mark)).unwrap_or('\u{fdee}')
}

//! What users write stays text.
//!
//! A message that holds the text of a control token (`<|im_end|>`) must not become that token: its writer could end the turn
//! and open one of the system's. A template mixes its own control tokens with such text, so the two are told apart before
//! they meet: in what users wrote, a mark breaks every control token. Then the template is rendered as ever; trimming,
//! escaping and comparing see the text, but for the marks in the tokens that somebody forged. What is whole in the result
//! is the template's own.
//!
//! The tokenizer takes the result with each of the template's own tokens under a name that nobody can guess, while their
//! texts are only text to it. The conversation is encoded as one text, so what stands between two control tokens is cut
//! into tokens as it always is.
//!
//! Conversations without such a text, all but a few, take the short way: nothing to mark, and the tokenizer as it is.

use std::collections::HashMap;

use slm_convert::chat::ChatMessage;
use tokenizers::{AddedToken, Tokenizer};

use super::Specials;

/// Code points that are no characters: nobody's text has a use for them.
const MARKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// A tokenizer to which control tokens are only text, but for those under their secret names.
#[derive(Debug)]
pub(super) struct PlainTokenizer {
    tokenizer: Tokenizer,
    /// Name and id of each control token, in the order of [`Specials::tokens`].
    names: Vec<(String, u32)>,
    /// Ids of the names here, and of the tokens that they stand for.
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

    /// The tokens of a text in which no control token is meant.
    pub(super) fn encode(&self, text: &str, add_special_tokens: bool) -> tokenizers::Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, add_special_tokens)?;
        Ok(encoding.get_ids().iter().map(|id| self.ids.get(id).copied().unwrap_or(*id)).collect())
    }

    /// The tokens of a rendered conversation whose users' texts were marked.
    pub(super) fn encode_marked(&self, text: &str, mark: char, specials: &Specials) -> tokenizers::Result<Vec<u32>> {
        let named = specials.replaced(text, |at| self.names[at].0.clone());
        let unmarked: String = named.chars().filter(|letter| *letter != mark).collect();
        self.encode(&unmarked, false)
    }
}

/// The conversation with a mark in every control token that somebody wrote, and the mark; `None` if nobody wrote one.
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

/// `text` with `mark` after the first letter of each place.
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

/// A mark that is in nobody's text, and not one of those around secret names. Where all are, their writer loses the last of
/// them and gains nothing.
fn unused_mark(messages: &[ChatMessage]) -> char {
    let own = |mark: &char| *mark == *MARKS.start() || *mark == *MARKS.end();
    let used = |mark: &char| messages.iter().any(|message| message.content.contains(*mark));
    MARKS.filter(|mark| !own(mark)).find(|mark| !used(mark)).unwrap_or('\u{fdee}')
}

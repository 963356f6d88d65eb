//! Search for control tokens in text.

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::{AddedToken, Tokenizer};

/// Control tokens by text. Longer ones match first.
#[derive(Debug)]
pub struct Specials {
    tokens: Vec<(u32, AddedToken)>,
    /// Finds the longest at each position; `None` without tokens.
    longest: Option<AhoCorasick>,
}

impl Specials {
    /// The control tokens of `tokenizer`.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self::with(tokenizer, &[])
    }

    /// The control tokens, and others of these ids that a chat template uses as such.
    pub(super) fn with(tokenizer: &Tokenizer, others: &[u32]) -> Self {
        Self::of(tokenizer, |id, token| token.special || others.contains(&id))
    }

    /// Tokens that are added to the vocabulary without being marked as control tokens.
    pub(super) fn unmarked(tokenizer: &Tokenizer) -> Self {
        Self::of(tokenizer, |_, token| !token.special)
    }

    fn of(tokenizer: &Tokenizer, is_one: impl Fn(u32, &AddedToken) -> bool) -> Self {
        let added = tokenizer.get_added_tokens_decoder().into_iter();
        let mut tokens: Vec<_> =
            added.filter(|(id, token)| is_one(*id, token) && !token.content.trim().is_empty()).collect();
        tokens.sort_unstable_by_key(|(id, _)| *id);
        let texts = tokens.iter().map(|(_, token)| token.content.as_str());
        // The texts of a vocabulary fit an automaton; without one nothing is found.
        let longest = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts).ok();
        let longest = longest.filter(|_| !tokens.is_empty());
        Self { tokens, longest }
    }

    /// Control tokens with their ids.
    pub(super) fn tokens(&self) -> &[(u32, AddedToken)] {
        &self.tokens
    }

    /// Whether a control token occurs in `text`.
    pub(super) fn occur_in(&self, text: &str) -> bool {
        self.longest.as_ref().is_some_and(|longest| longest.is_match(text))
    }

    /// Where control tokens stand in `text`, the longest at each place, in order: index in [`Self::tokens`], and range.
    pub(super) fn places_in<'s>(&'s self, text: &'s str) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> + 's {
        let found = self.longest.as_ref().map(|longest| longest.find_iter(text));
        found.into_iter().flatten().map(|found| (found.pattern().as_usize(), found.range()))
    }
}

//! Search for control tokens in text.

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::{AddedToken, Tokenizer};

/// Control tokens by text. Longer ones match first.
#[derive(Debug)]
pub struct Specials {
    tokens: Vec<(u32, AddedToken)>,
    /// Finds the longest at each position; `None` without tokens.
    longest: Option<AhoCorasick>,
    /// Finds all occurrences.
    every: Option<AhoCorasick>,
}

impl Specials {
    /// The control tokens of `tokenizer`.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder().into_iter();
        let mut tokens: Vec<_> = added.filter(|(_, token)| token.special && !token.content.is_empty()).collect();
        tokens.sort_unstable_by_key(|(id, _)| *id);
        let texts = || tokens.iter().map(|(_, token)| token.content.as_str());
        // The texts of a vocabulary fit an automaton; without one nothing is found.
        let build = |kind| AhoCorasick::builder().match_kind(kind).build(texts()).ok().filter(|_| !tokens.is_empty());
        let (longest, every) = (build(MatchKind::LeftmostLongest), build(MatchKind::Standard));
        Self { tokens, longest, every }
    }

    /// Control tokens with their ids.
    pub(super) fn tokens(&self) -> &[(u32, AddedToken)] {
        &self.tokens
    }

    /// Whether a control token occurs in `text`.
    pub(super) fn occur_in(&self, text: &str) -> bool {
        self.every.as_ref().is_some_and(|every| every.is_match(text))
    }

    /// Positions where control tokens begin in `text`, in order: whole ones, and a beginning of one at the end,
    /// ignoring white space, which subsequent text could complete.
    pub(super) fn places_in(&self, text: &str) -> Vec<usize> {
        let Some(every) = &self.every else { return Vec::new() };
        let mut places: Vec<usize> = every.find_overlapping_iter(text).map(|found| found.start()).collect();
        let end = text.trim_end();
        for (_, token) in &self.tokens {
            let starts = token.content.char_indices().skip(1).map(|(at, _)| &token.content[..at]);
            places.extend(starts.filter(|start| end.ends_with(start)).map(|start| end.len() - start.len()));
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    /// `text` with each control token, the longest first, replaced by `words` of its index in [`Self::tokens`].
    pub(super) fn replaced(&self, text: &str, words: impl Fn(usize) -> String) -> String {
        let Some(longest) = &self.longest else { return text.to_owned() };
        let mut out = String::with_capacity(text.len());
        longest.replace_all_with(text, &mut out, |found, _, out| {
            out.push_str(&words(found.pattern().as_usize()));
            true
        });
        out
    }
}

//! Prompts of exactly so many tokens, no two of which begin alike: neither server may answer from what it kept.

use anyhow::{Context, Result, ensure};
use slm_convert::bundle::Bundle;

/// Ids below are special tokens, bytes and the commonest syllables.
const FIRST_TOKEN_MIN: usize = 2000;

/// An endless supply of them.
pub(crate) struct Prompts {
    text: Vec<u32>,
    vocab_size: usize,
    made: usize,
}

impl Prompts {
    pub(crate) fn new(bundle: &Bundle) -> Result<Self> {
        let tokenizer = bundle.tokenizer()?.context("no tokenizer")?;
        let text = include_str!("../../../LICENSE");
        let encoding = tokenizer.encode_fast(text, false).map_err(anyhow::Error::msg)?;
        let vocab_size = bundle.info.architecture.vocab_size;
        ensure!(vocab_size > 2 * FIRST_TOKEN_MIN, "a vocabulary of {vocab_size} tokens is too small");
        Ok(Self { text: encoding.get_ids().to_vec(), vocab_size, made: 0 })
    }

    /// The next `streams` prompts, of `tokens` each.
    pub(crate) fn next(&mut self, streams: usize, tokens: usize) -> Vec<Vec<u32>> {
        (0..streams).map(|_| self.one(tokens)).collect()
    }

    /// The next one: English text behind a token of its own.
    pub(crate) fn one(&mut self, tokens: usize) -> Vec<u32> {
        self.made += 1;
        let first = FIRST_TOKEN_MIN + self.made % (self.vocab_size - FIRST_TOKEN_MIN);
        // A step that shares no factor with most lengths, so that slices differ for long.
        let from = self.made * 61 % (self.text.len() + 2 - tokens);
        let mut prompt = vec![first as u32];
        prompt.extend_from_slice(&self.text[from..from + tokens - 1]);
        prompt
    }
}

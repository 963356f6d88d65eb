//! The model's tokens as a search tree over their bytes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use llguidance::{ParserFactory, api::ParserLimits};
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::error::foreign;
use crate::text::TokenBytes;

/// Longer tokens do not fit the tree; they are never sampled.
const TOKEN_BYTES_MAX: usize = 1000;

/// Bounds on the work for one grammar: of what is compiled, of a mask, and of what is learnt from the answers.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        // A state takes up to 2 KiB.
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// Compiles grammars over the vocabulary. Control tokens are no text, so no grammar allows one; the token after the last of the
/// vocabulary stands for the end of the answer.
pub(super) fn factory(bytes: &TokenBytes, vocab_size: usize) -> Result<ParserFactory, String> {
    let mut words: Vec<Vec<u8>> = (0..bytes.len().min(vocab_size) as u32).map(|id| word(bytes, id).to_vec()).collect();
    words.push(Vec::new());
    let info = TokRxInfo::new(words.len() as u32, words.len() as u32 - 1);
    let made = catch_unwind(AssertUnwindSafe(|| {
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let mut factory = ParserFactory::new_simple(&environment).map_err(|error| foreign(&error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(factory)
    }));
    made.unwrap_or_else(|_| Err("the tree over its tokens could not be built".to_owned()))
}

/// The token's text in an answer.
fn word(bytes: &TokenBytes, id: u32) -> &[u8] {
    // Begins no character; such a word would be a control token.
    const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    match bytes.get(id) {
        _ if bytes.is_special(id) => &[],
        [MARKER, ..] => &[],
        word if word.len() > TOKEN_BYTES_MAX => &[],
        word => word,
    }
}

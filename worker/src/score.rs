//! Perplexity of a model on a text.

use crate::{
    runtime::{Backend, Chunk, LogitsRequest, SessionError, TOKENS_MAX},
    sample::log_sum_exp,
};

/// `exp` of the mean negative log-likelihood of every token of `tokens` but the first, in one window.
///
/// `tokens` must have at least two and fit the session's context and pages. `progress` is called with the number of
/// scored tokens.
pub fn perplexity(
    backend: &mut dyn Backend,
    tokens: &[u32],
    adapter: Option<usize>,
    progress: &mut dyn FnMut(usize),
) -> Result<f64, SessionError> {
    let geometry = backend.geometry();
    let vocab = geometry.vocab_size;
    let mut total = 0.0;
    let mut past = 0;
    let pages: Vec<u32> = (0..geometry.pages_for(1, tokens.len()) as u32).collect();
    for chunk in tokens.chunks(TOKENS_MAX) {
        backend.step(&[Chunk {
            tokens: chunk,
            past,
            pages: &pages,
            state: Some(0),
            adapter,
            logits: LogitsRequest::All,
            candidates: None,
        }])?;
        let logits = backend.rows()?;
        past += chunk.len();
        let next = tokens[past - chunk.len() + 1..].iter();
        for (logits, &token) in logits.chunks_exact(vocab).zip(next) {
            total -= f64::from(logits[token as usize] - log_sum_exp(logits));
        }
        progress(past);
    }
    Ok((total / (tokens.len() - 1) as f64).exp())
}

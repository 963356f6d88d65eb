//! Perplexity: how well a model predicts a text.

use crate::{
    runtime::{CHUNK_MAX, DecoderSession, SessionError},
    sample::log_sum_exp,
};

/// `exp` of the mean negative log-likelihood of every token of `tokens` but the first, in one window.
///
/// `tokens` must fit the session's context and have at least two. `progress` is told of scored tokens.
pub fn perplexity(
    session: &mut DecoderSession,
    tokens: &[u32],
    adapter: Option<usize>,
    progress: &mut dyn FnMut(usize),
) -> Result<f64, SessionError> {
    let vocab = session.vocab_size();
    let mut total = 0.0;
    let mut past = 0;
    for chunk in tokens.chunks(CHUNK_MAX) {
        let logits = session.prefill_wanting(0, past, chunk, adapter, 0..chunk.len())?;
        past += chunk.len();
        let next = tokens[past - chunk.len() + 1..].iter();
        for (logits, &token) in logits.chunks_exact(vocab).zip(next) {
            total -= f64::from(logits[token as usize] - log_sum_exp(logits));
        }
        progress(past);
    }
    Ok((total / (tokens.len() - 1) as f64).exp())
}

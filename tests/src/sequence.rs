//! Sequences that a test drives by hand, each in pages of its own.

use anyhow::{Context, Result};
use slm_worker::{
    runtime::{Backend, Chunk, Geometry, LogitsRequest},
    sample::argmax,
};

/// Tokens of one sequence, and what of them the session has.
#[derive(Debug)]
pub struct Sequence {
    tokens: Vec<u32>,
    past: usize,
    pages: Vec<u32>,
    state: usize,
    adapter: Option<usize>,
}

impl Sequence {
    /// The `index`th of sequences that have `positions` at most, with the adapter in that slot.
    pub fn new(geometry: &Geometry, index: usize, positions: usize, adapter: Option<usize>) -> Self {
        let pages = geometry.pages_for(1, positions) as u32;
        let first = index as u32 * pages;
        Self { tokens: Vec::new(), past: 0, pages: (first..first + pages).collect(), state: index, adapter }
    }

    /// Tokens for the next step.
    pub fn push(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }
}

/// Takes in whatever is new of all of them, at once; the likeliest next token of each.
pub fn greedy(backend: &mut dyn Backend, sequences: &mut [Sequence]) -> Result<Vec<u32>> {
    let rows = take_in(backend, sequences, LogitsRequest::Last, Some(1.0))?;
    let mut token = |row| match backend.top(row) {
        Some(top) => top.ids.first().copied().context("no candidates"),
        None => Ok(argmax(backend.row(row)?).context("no largest logit")?.0),
    };
    (0..rows).map(&mut token).collect()
}

/// Takes in whatever is new of all of them, at once; rows of logits as wanted of each.
pub fn step<'a>(backend: &'a mut dyn Backend, sequences: &mut [Sequence], logits: LogitsRequest) -> Result<&'a [f32]> {
    take_in(backend, sequences, logits, None)?;
    Ok(backend.rows()?)
}

fn take_in(
    backend: &mut dyn Backend,
    sequences: &mut [Sequence],
    logits: LogitsRequest,
    candidates: Option<f32>,
) -> Result<usize> {
    let chunks: Vec<Chunk<'_>> = sequences
        .iter()
        .map(|Sequence { tokens, past, pages, state, adapter }| Chunk {
            tokens: &tokens[*past..],
            past: *past,
            pages,
            state: Some(*state),
            adapter: *adapter,
            logits,
            candidates,
        })
        .collect();
    let rows = backend.step(&chunks)?;
    for sequence in sequences {
        sequence.past = sequence.tokens.len();
    }
    Ok(rows)
}

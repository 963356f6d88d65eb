//! Sequences that a test drives by hand, each in pages of its own.

use anyhow::Result;
use slm_worker::runtime::{Backend, Chunk, Geometry, LogitsRequest};

/// Tokens of one sequence, and what of them the session has.
#[derive(Debug)]
pub struct Sequence {
    tokens: Vec<u32>,
    past: usize,
    pages: Vec<u32>,
    adapter: Option<usize>,
}

impl Sequence {
    /// The `index`th of sequences that have `positions` at most, with the adapter in that slot.
    pub fn new(geometry: &Geometry, index: usize, positions: usize, adapter: Option<usize>) -> Self {
        let pages = geometry.pages_for(1, positions) as u32;
        let first = index as u32 * pages;
        Self { tokens: Vec::new(), past: 0, pages: (first..first + pages).collect(), adapter }
    }

    /// Tokens for the next step.
    pub fn push(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }
}

/// Takes in whatever is new of all of them, at once; rows of logits as wanted of each.
pub fn step<'a>(backend: &'a mut dyn Backend, sequences: &mut [Sequence], logits: LogitsRequest) -> Result<&'a [f32]> {
    let chunks: Vec<Chunk<'_>> = sequences
        .iter()
        .map(|Sequence { tokens, past, pages, adapter }| Chunk {
            tokens: &tokens[*past..],
            past: *past,
            pages,
            adapter: *adapter,
            logits,
        })
        .collect();
    let rows = backend.step(&chunks)?;
    for sequence in sequences {
        sequence.past = sequence.tokens.len();
    }
    Ok(rows)
}

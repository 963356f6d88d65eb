//! Token mixers that carry a state of fixed size from token to token: gated short convolutions and the gated delta rule.
//!
//! The new tokens of all sequences are rows of one step without padding; each sequence has a row of [`Rows`](crate::rows::Rows) with its state
//! ([`Span::slot`]). Tokens of a sequence go through its state one after the other, so threads divide sequences, and channels or
//! heads within them.
//!
//! Guarantee: an output, and a state, has the same bits whatever else is in the step, however the tokens of a sequence are cut into
//! steps, however many threads there are, and on every instruction set.
#![allow(unsafe_code)] // Rows that threads share; every function says who may write where.

mod convolution;
mod delta_rule;

use std::ops::Range;

pub use convolution::ShortConvolution;
pub use delta_rule::DeltaRule;

/// Floats that are computed at once: widths of heads are multiples of it.
pub const LANES: usize = 16;
/// Bound on the width of a head.
pub const HEAD_DIM_MAX: usize = 256;
/// Bound on the tokens that a convolution sees; models have 3 or 4.
pub const KERNEL_MAX: usize = 8;

/// New tokens of one sequence in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Row of its first token.
    pub first: usize,
    /// Number of its tokens.
    pub tokens: usize,
    /// Row of its state.
    pub slot: usize,
    /// Whether these are the first tokens of the sequence: they begin from zeros, whatever the row holds.
    pub fresh: bool,
}

impl Span {
    /// Rows of its tokens.
    #[must_use]
    pub fn rows(&self) -> Range<usize> {
        self.first..self.first + self.tokens
    }
}

/// Columns of part `part` of `parts`, whole blocks but for the last one.
#[must_use]
pub fn columns(width: usize, part: usize, parts: usize) -> Range<usize> {
    let cut = |part: usize| (crate::phases::cut(width.div_ceil(LANES), part, parts) * LANES).min(width);
    cut(part)..cut(part + 1)
}

/// A block, or what is left of one with zeros behind.
#[inline(always)]
fn load(floats: &[f32]) -> [f32; LANES] {
    match floats.first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut part = [0.0; LANES];
            part[..floats.len()].copy_from_slice(floats);
            part
        }
    }
}

/// The begin of a block.
#[inline(always)]
fn store(block: &[f32; LANES], floats: &mut [f32]) {
    match floats.first_chunk_mut() {
        Some(whole) => *whole = *block,
        None => floats.copy_from_slice(&block[..floats.len()]),
    }
}

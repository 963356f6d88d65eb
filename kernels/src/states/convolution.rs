//! Causal convolution of each channel by itself, and the gated short convolution.
#![allow(unsafe_code)] // Rows that threads share; every function says who may write where.

use std::ops::Range;

use super::{KERNEL_MAX, LANES, Span, load, store};
use crate::{level::Level, rows::Rows, rowwise::at_level};

/// Causal convolution of each channel by itself. Its state is the inputs of the last `kernel - 1` tokens, `[kernel - 1, width]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convolution<'a> {
    /// `[kernel, width]`, the last row for the token itself.
    pub(super) weights: &'a [f32],
    /// `[width]`; empty for none.
    pub(super) bias: &'a [f32],
    pub(super) width: usize,
    pub(super) kernel: usize,
}

impl Convolution<'_> {
    pub(super) fn check(&self) {
        let Self { weights, bias, width, kernel } = *self;
        assert!((1..=KERNEL_MAX).contains(&kernel), "a convolution over {kernel} tokens");
        assert!(weights.len() == kernel * width, "{} weights for {kernel} of {width}", weights.len());
        assert!(bias.is_empty() || bias.len() == width, "{} biases for {width} channels", bias.len());
    }

    /// Convolves columns of the span's tokens: `input(row, columns)` are the inputs of at most [`LANES`] channels, and `give(row,
    /// columns, results)` takes what comes of them.
    ///
    /// # Safety
    /// No other thread uses these columns of the span's state.
    #[inline(always)]
    pub(super) unsafe fn columns(
        &self,
        span: Span,
        columns: Range<usize>,
        states: Rows<'_>,
        input: impl Fn(usize, Range<usize>) -> [f32; LANES],
        give: impl Fn(usize, Range<usize>, [f32; LANES]),
    ) {
        let Self { weights, bias, width, kernel } = *self;
        let before = kernel - 1;
        for begin in columns.clone().step_by(LANES) {
            let block = begin..(begin + LANES).min(columns.end);
            let at = |row: usize| row * width + block.start..row * width + block.end;
            let mut taps = [[0.0; LANES]; KERNEL_MAX];
            let mut window = [[0.0; LANES]; KERNEL_MAX];
            for (row, tap) in taps[..kernel].iter_mut().enumerate() {
                *tap = load(&weights[at(row)]);
            }
            if !span.fresh {
                for (row, floats) in window[..before].iter_mut().enumerate() {
                    // SAFETY: this thread's columns, by the caller's promise.
                    *floats = load(unsafe { states.cells_mut(span.slot, at(row)) });
                }
            }
            let bias = if bias.is_empty() { [0.0; LANES] } else { load(&bias[block.clone()]) };
            for row in span.rows() {
                window[before] = input(row, block.clone());
                let mut sums = bias;
                for (floats, tap) in window[..kernel].iter().zip(&taps) {
                    for ((sum, float), tap) in sums.iter_mut().zip(floats).zip(tap) {
                        *sum = tap.mul_add(*float, *sum);
                    }
                }
                for row in 0..before {
                    window[row] = window[row + 1];
                }
                give(row, block.clone(), sums);
            }
            for (row, floats) in window[..before].iter().enumerate() {
                // SAFETY: as above.
                store(floats, unsafe { states.cells_mut(span.slot, at(row)) });
            }
        }
    }
}

/// Gated short convolution: `c * (convolution(b * x) + bias)`. Rows of inputs are `b`, `c` and `x` side by side.
#[derive(Debug, Clone, Copy)]
pub struct ShortConvolution<'a> {
    /// Weights `[kernel, width]`, the last row for the token itself.
    pub weights: &'a [f32],
    /// Biases of the channels; empty for none.
    pub bias: &'a [f32],
    /// Channels.
    pub width: usize,
    /// Tokens that a token sees, itself included.
    pub kernel: usize,
}

impl ShortConvolution<'_> {
    /// Floats of the state of a sequence.
    #[must_use]
    pub fn state_floats(&self) -> usize {
        (self.kernel - 1) * self.width
    }

    /// Computes columns of a sequence's tokens, `x` being the rows of all tokens of the step, and brings these columns of its state up
    /// to date.
    ///
    /// # Panics
    /// Shapes do not fit each other, or the CPU has not the level.
    ///
    /// # Safety
    /// No other thread uses these columns of the span's state and of its rows of `out`.
    pub unsafe fn columns(
        &self,
        level: Level,
        span: Span,
        columns: Range<usize>,
        x: &[f32],
        (states, out): (Rows<'_>, Rows<'_>),
    ) {
        self.convolution().check();
        assert!(columns.end <= self.width && out.width() == self.width, "columns {columns:?} of {}", out.width());
        assert!(states.width() == self.state_floats(), "states of {}, not {}", states.width(), self.state_floats());
        let this = *self;
        at_level!(level, short(this: ShortConvolution<'_>, span: Span, columns: Range<usize>, x: &[f32], states: Rows<'_>, out: Rows<'_>));
    }

    fn convolution(&self) -> Convolution<'_> {
        let Self { weights, bias, width, kernel } = *self;
        Convolution { weights, bias, width, kernel }
    }
}

/// Only for [`ShortConvolution::columns`], whose promises it takes over.
#[inline(always)]
fn short(of: ShortConvolution<'_>, span: Span, columns: Range<usize>, x: &[f32], states: Rows<'_>, out: Rows<'_>) {
    let width = of.width;
    let part = |row: usize, part: usize, block: &Range<usize>| {
        let begin = (3 * row + part) * width;
        load(&x[begin + block.start..begin + block.end])
    };
    let input = |row: usize, block: Range<usize>| {
        let (mut b, x) = (part(row, 0, &block), part(row, 2, &block));
        b.iter_mut().zip(x).for_each(|(b, x)| *b *= x);
        b
    };
    let give = |row: usize, block: Range<usize>, mut sums: [f32; LANES]| {
        let c = part(row, 1, &block);
        sums.iter_mut().zip(c).for_each(|(sum, c)| *sum *= c);
        // SAFETY: this thread's columns, by the promise of the caller of `columns`.
        store(&sums, unsafe { out.cells_mut(row, block) });
    };
    // SAFETY: as above.
    unsafe { of.convolution().columns(span, columns, states, input, give) };
}

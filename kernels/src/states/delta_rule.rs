//! The gated delta rule.
//!
//! For each value head, with the state `S` of `[key_dim, value_dim]`, `q` and `k` of its key head after convolution and SiLU, both
//! divided by their lengths, and `q` by the root of `key_dim`:
//!
//! ```text
//! g = exp(-rate * softplus(a + step))
//! d = sigmoid(b) * (v - g * S^T k)
//! o = g * S^T q + (q k) d
//! S = g * S + k d^T
//! y = rms_norm(o) * gain * silu(z)
//! ```
//!
//! `o` is `S^T q` of the new state, without reading it again.
#![allow(unsafe_code)] // Rows that threads share; every function says who may write where.

use std::ops::Range;

use super::{HEAD_DIM_MAX, LANES, Span, convolution::Convolution, load, store};
use crate::{
    level::Level,
    rows::Rows,
    rowwise::{at_level, exp, inverse_rms, silu, sum},
};

/// Added to the square of a length.
const LENGTH_EPSILON: f32 = 1e-6;
/// From here on, softplus is its argument.
const SOFTPLUS_LINEAR: f32 = 20.0;

/// A layer with the gated delta rule. Rows of inputs are queries and keys of all key heads, values and gates of all value heads,
/// then `b` and `a` of each value head, side by side.
#[derive(Debug, Clone, Copy)]
pub struct DeltaRule<'a> {
    /// Weights of the convolution over queries, keys and values, `[kernel, channels]`, the last row for the token itself.
    pub weights: &'a [f32],
    /// Rate of forgetting of each value head.
    pub rates: &'a [f32],
    /// Added to `a` of each value head.
    pub steps: &'a [f32],
    /// Gains of the norm of a head's result.
    pub gain: &'a [f32],
    /// Epsilon of that norm.
    pub epsilon: f32,
    /// Heads of queries and of keys.
    pub key_heads: usize,
    /// Heads of values; a multiple of `key_heads`, of which each serves consecutive ones.
    pub value_heads: usize,
    /// Width of a head of queries, or keys.
    pub key_dim: usize,
    /// Width of a head of values.
    pub value_dim: usize,
    /// Tokens that the convolution of a token sees, itself included.
    pub kernel: usize,
}

impl DeltaRule<'_> {
    /// Channels of the convolution: queries, keys and values of a token.
    #[must_use]
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_width()
    }

    /// Floats of a result.
    #[must_use]
    pub fn value_width(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Floats of a row of inputs.
    #[must_use]
    pub fn input_width(&self) -> usize {
        self.channels() + self.value_width() + 2 * self.value_heads
    }

    /// Floats of the state of a sequence: inputs of the convolution of its last tokens, then a matrix for each value head.
    #[must_use]
    pub fn state_floats(&self) -> usize {
        (self.kernel - 1) * self.channels() + self.value_width() * self.key_dim
    }

    /// Convolves columns of a sequence's queries, keys and values, `x` being the rows of all tokens of the step, into its rows of
    /// `mixed`, of [`DeltaRule::channels`] each, and brings these columns of its state up to date.
    ///
    /// # Panics
    /// Shapes do not fit each other, or the CPU has not the level.
    ///
    /// # Safety
    /// No other thread uses these columns of the span's state and of its rows of `mixed`.
    pub unsafe fn convolve(
        &self,
        level: Level,
        span: Span,
        columns: Range<usize>,
        x: &[f32],
        (states, mixed): (Rows<'_>, Rows<'_>),
    ) {
        self.check(states, mixed);
        self.convolution().check();
        assert!(columns.end <= self.channels(), "columns {columns:?} of {}", self.channels());
        let this = *self;
        at_level!(level, convolved(this: DeltaRule<'_>, span: Span, columns: Range<usize>, x: &[f32], states: Rows<'_>, mixed: Rows<'_>));
    }

    /// Computes the results of value head `head` for a sequence's tokens, in their rows of `out`, and brings its part of the
    /// state up to date.
    ///
    /// # Panics
    /// As [`DeltaRule::convolve`].
    ///
    /// # Safety
    /// The span is convolved, and no other thread uses this head of the span's state and of its rows of `out`.
    pub unsafe fn head(
        &self,
        level: Level,
        (span, head): (Span, usize),
        x: &[f32],
        mixed: Rows<'_>,
        (states, out): (Rows<'_>, Rows<'_>),
    ) {
        self.check(states, mixed);
        assert!(head < self.value_heads && out.width() == self.value_width(), "head {head} of {}", out.width());
        assert!(x.len() >= span.rows().end * self.input_width(), "{} inputs for {span:?}", x.len());
        let this = *self;
        at_level!(level, headed(this: DeltaRule<'_>, span: Span, head: usize, x: &[f32], mixed: Rows<'_>, states: Rows<'_>, out: Rows<'_>));
    }

    fn convolution(&self) -> Convolution<'_> {
        Convolution { weights: self.weights, bias: &[], width: self.channels(), kernel: self.kernel }
    }

    fn check(&self, states: Rows<'_>, mixed: Rows<'_>) {
        let Self { rates, steps, gain, key_heads, value_heads, key_dim, value_dim, .. } = *self;
        let fits = |dim: usize| dim > 0 && dim <= HEAD_DIM_MAX && dim.is_multiple_of(LANES);
        assert!(fits(key_dim) && fits(value_dim), "heads of {key_dim} and {value_dim}");
        assert!(key_heads > 0 && value_heads.is_multiple_of(key_heads), "{value_heads} heads over {key_heads}");
        let found = [rates.len(), steps.len(), gain.len()];
        assert!(found == [value_heads, value_heads, value_dim], "{found:?} rates, steps and gains");
        assert!(states.width() == self.state_floats(), "states of {}, not {}", states.width(), self.state_floats());
        assert!(mixed.width() == self.channels(), "rows of {}, not {}", mixed.width(), self.channels());
    }
}

/// Only for [`DeltaRule::convolve`], whose promises it takes over.
#[inline(always)]
fn convolved(of: DeltaRule<'_>, span: Span, columns: Range<usize>, x: &[f32], states: Rows<'_>, mixed: Rows<'_>) {
    let (width, before) = (of.input_width(), of.kernel - 1);
    let input = |row: usize, block: Range<usize>| load(&x[row * width + block.start..row * width + block.end]);
    let give = |row: usize, block: Range<usize>, mut sums: [f32; LANES]| {
        sums.iter_mut().for_each(|sum| *sum = silu(*sum));
        // SAFETY: this thread's columns, by the promise of the caller of `convolve`.
        store(&sums, unsafe { mixed.cells_mut(row, block) });
    };
    debug_assert!(states.width() >= before * of.channels());
    // SAFETY: as above.
    unsafe { of.convolution().columns(span, columns, states, input, give) };
}

/// Only for [`DeltaRule::head`], whose promises it takes over.
#[inline(always)]
fn headed(of: DeltaRule<'_>, span: Span, head: usize, x: &[f32], mixed: Rows<'_>, states: Rows<'_>, out: Rows<'_>) {
    let DeltaRule { key_heads, value_heads, key_dim, value_dim, .. } = of;
    let key_head = head / (value_heads / key_heads);
    let (channels, width, keys) = (of.channels(), of.input_width(), key_heads * key_dim);
    let begin = (of.kernel - 1) * channels + head * key_dim * value_dim;
    // SAFETY: this head's part of the span's state, by the promise of the caller of `head`.
    let state = unsafe { states.cells_mut(span.slot, begin..begin + key_dim * value_dim) };
    if span.fresh {
        state.fill(0.0);
    }
    let (mut q, mut k) = ([0.0; HEAD_DIM_MAX], [0.0; HEAD_DIM_MAX]);
    let (q, k) = (&mut q[..key_dim], &mut k[..key_dim]);
    let root = 1.0 / (key_dim as f32).sqrt();
    for row in span.rows() {
        let inputs = &x[row * width..][..width];
        // SAFETY: the span is convolved, by the promise of the caller of `head`; nobody writes to it now.
        let mixed = unsafe { mixed.read(row) };
        scaled(&mixed[key_head * key_dim..][..key_dim], root, q);
        scaled(&mixed[keys + key_head * key_dim..][..key_dim], 1.0, k);
        let values = &mixed[2 * keys + head * value_dim..][..value_dim];
        let gates = &inputs[channels + head * value_dim..][..value_dim];
        let [b, a] = [0, value_heads].map(|behind| inputs[channels + of.value_width() + behind + head]);
        let token = Token {
            q,
            k,
            along: dot(q, k),
            forget: exp(-of.rates[head] * softplus(a + of.steps[head])),
            correct: 1.0 / (1.0 + exp(-b)),
        };
        // SAFETY: this head's cells, by the promise of the caller of `head`.
        let result = unsafe { out.cells_mut(row, head * value_dim..(head + 1) * value_dim) };
        for column in (0..value_dim).step_by(LANES) {
            store(&token.step(state, value_dim, column, &load(&values[column..])), &mut result[column..]);
        }
        let scale = inverse_rms(result, of.epsilon);
        for ((result, gain), gate) in result.iter_mut().zip(of.gain).zip(gates) {
            *result = *result * scale * gain * silu(*gate);
        }
    }
}

/// What a token brings to a head.
struct Token<'a> {
    q: &'a [f32],
    k: &'a [f32],
    /// Product of both.
    along: f32,
    /// What the state is multiplied by.
    forget: f32,
    /// Part of its error by which the state is corrected.
    correct: f32,
}

impl Token<'_> {
    /// Brings [`LANES`] columns of a state up to date, from `column` on; gives their results.
    #[inline(always)]
    fn step(&self, state: &mut [f32], width: usize, column: usize, values: &[f32; LANES]) -> [f32; LANES] {
        let Self { q, k, along, forget, correct } = *self;
        let (mut of_q, mut of_k) = ([0.0; LANES], [0.0; LANES]);
        for ((row, q), k) in state.chunks_exact(width).zip(q).zip(k) {
            let row = load(&row[column..]);
            for lane in 0..LANES {
                of_q[lane] = q.mul_add(row[lane], of_q[lane]);
                of_k[lane] = k.mul_add(row[lane], of_k[lane]);
            }
        }
        let (mut error, mut result) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            error[lane] = correct * forget.mul_add(-of_k[lane], values[lane]);
            result[lane] = along.mul_add(error[lane], forget * of_q[lane]);
        }
        for (row, k) in state.chunks_exact_mut(width).zip(k) {
            let mut floats = load(&row[column..]);
            for lane in 0..LANES {
                floats[lane] = k.mul_add(error[lane], forget * floats[lane]);
            }
            store(&floats, &mut row[column..]);
        }
        result
    }
}

/// `out = factor * x / |x|`.
#[inline(always)]
fn scaled(x: &[f32], factor: f32, out: &mut [f32]) {
    let scale = factor / (sum(x, |sum, x| x.mul_add(x, sum)) + LENGTH_EPSILON).sqrt();
    out.iter_mut().zip(x).for_each(|(out, x)| *out = scale * x);
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] = a[lane].mul_add(b[lane], sums[lane]);
        }
    }
    sum(&sums, |sum, x| sum + x)
}

/// `ln(1 + e^x)`.
#[inline(always)]
fn softplus(x: f32) -> f32 {
    if x > SOFTPLUS_LINEAR { x } else { exp(x).ln_1p() }
}

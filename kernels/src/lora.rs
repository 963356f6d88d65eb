//! LoRA in two products: `h = x A` ([`hidden`], vLLM's "shrink") and `y += h B` ([`add_columns`], vLLM's "expand").
//!
//! Adapters have 32 bits beside a model of 32-bit floats (`exact`), and 8 bits beside quantised weights (`int8`): these
//! take half the bandwidth of 16 bits, and are rounded more finely than the base's weights.
//!
//! Tokens with the same adapter are computed several at a time, so that its matrices are read once for them. The
//! arithmetic of a token depends neither on the batch nor on the ranges of columns, and is the same on every
//! instruction set: a token gets the same bits alone and in a batch.
#![allow(unsafe_code)] // Several threads write to rows; the functions say who may write where.

mod exact;
mod int8;
mod layout;

use std::ops::Range;

use crate::{activations::Activations, level::Level, memory, pack::Weights, rows::Rows, simd::WIDTH};
use layout::Part;
pub use layout::{FactorError, Layout, Module, Pair};

/// Tokens that read a matrix together.
const TOKENS: usize = 4;

/// B of one module and the tokens that it is added to, on an instruction set.
trait AddColumns<S> {
    /// `TILES` whole tiles from column `n` on, for `COUNT` tokens: as many as there are, or fewer.
    ///
    /// # Safety
    /// The columns are B's and the tokens', and the instruction set is there.
    unsafe fn tiles<const TILES: usize, const COUNT: usize>(&self, n: usize);

    /// Column `n` for all tokens, of a tile that is not wanted whole.
    ///
    /// # Safety
    /// As [`AddColumns::tiles`].
    unsafe fn column(&self, n: usize);
}

/// Columns in order for so many tokens, as many tiles at once as leave enough chains of sums and fit the registers of AVX2.
///
/// # Safety
/// As [`AddColumns::tiles`].
#[inline(always)]
unsafe fn walk<S, B: AddColumns<S>>(b: &B, columns: Range<usize>, tokens: usize) {
    let together = match tokens {
        1 => 4,
        2 => 2,
        _ => 1,
    };
    let mut n = columns.start;
    while n < columns.end {
        let whole = n.is_multiple_of(WIDTH);
        // SAFETY: passed on; columns stay within `columns`, and there are as many tokens as is said.
        unsafe {
            if whole && n + together * WIDTH <= columns.end {
                match tokens {
                    1 => b.tiles::<4, 1>(n),
                    2 => b.tiles::<2, 2>(n),
                    3 => b.tiles::<1, 3>(n),
                    _ => b.tiles::<1, 4>(n),
                }
                n += together * WIDTH;
            } else if whole && n + WIDTH <= columns.end {
                match tokens {
                    1 => b.tiles::<1, 1>(n),
                    _ => b.tiles::<1, 2>(n),
                }
                n += WIDTH;
            } else {
                b.column(n);
                n += 1;
            }
        }
    }
}

/// An adapter for one fused projection, ready to compute with; see [`Layout::adapter`].
#[derive(Debug, Clone, Copy)]
pub struct Adapter<'a> {
    rank: usize,
    inputs: usize,
    outputs: usize,
    parts: &'a [Part],
    matrices: Matrices<'a>,
}

/// A of all modules one under the other, then each module's B, in tiles of sixteen columns: `[columns / 16, rank, 16]`,
/// or in 8 bits `[columns / 16, rank / 2, 16, 2]`.
#[derive(Debug, Clone, Copy)]
enum Matrices<'a> {
    F32 {
        a: &'a [f32],
        /// Multiplied by the module's factor.
        b: &'a [f32],
    },
    Int8 {
        a: Weights<'a>,
        b: &'a [u8],
        /// Of each rank, what its row of B was divided by, the factor included.
        scales: &'a [f32],
    },
}

impl Adapter<'_> {
    /// Rows of A: the ranks of all modules together.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Whether every scale, or in 32 bits every weight, is a number: so it is in what [`Layout::pack`] wrote, but bytes may
    /// come from anywhere.
    pub fn is_finite(&self) -> bool {
        let all = |values: &[f32]| values.iter().all(|value| value.is_finite());
        match self.matrices {
            Matrices::F32 { a, b } => all(a) && all(b),
            Matrices::Int8 { a, scales, .. } => a.are_finite() && all(scales),
        }
    }

    /// Bytes of B for one column.
    pub(crate) fn column_bytes(&self) -> usize {
        let element = if matches!(self.matrices, Matrices::F32 { .. }) { size_of::<f32>() } else { 1 };
        self.parts.iter().map(|part| part.tile / WIDTH * element).max().unwrap_or(0)
    }

    /// Prefetches the B of these columns for [`add_columns`].
    pub(crate) fn fetch_columns(&self, columns: Range<usize>) {
        for part in self.parts {
            let Some(columns) = part.within(&columns) else { continue };
            let tiles = columns.start / WIDTH..columns.end.div_ceil(WIDTH);
            let elements = part.b_begin + tiles.start * part.tile..part.b_begin + tiles.end * part.tile;
            match self.matrices {
                Matrices::F32 { b, .. } => memory::fetch(b, elements),
                Matrices::Int8 { b, .. } => memory::fetch(b, elements),
            }
        }
    }

    /// Prefetches the part of A that is to all of it as `part` is to `0..of`.
    pub(crate) fn fetch_hidden(&self, part: Range<usize>, of: usize) {
        let cut = |len: usize| len * part.start / of..len * part.end / of;
        match self.matrices {
            Matrices::F32 { a, .. } => memory::fetch(a, cut(a.len())),
            Matrices::Int8 { a, .. } => memory::fetch(a.bytes(), cut(a.bytes().len())),
        }
    }
}

/// Rows of a step with the same adapter.
#[derive(Debug, Clone, Copy)]
pub struct AdapterRows<'a> {
    /// Their adapter.
    pub adapter: Adapter<'a>,
    /// Indices of the rows, each once.
    pub tokens: &'a [u32],
}

impl<'a> AdapterRows<'a> {
    /// The same adapter for a range of the rows.
    #[must_use]
    pub fn some(&self, tokens: Range<usize>) -> Self {
        Self { adapter: self.adapter, tokens: &self.tokens[tokens] }
    }
}

/// Inputs of [`hidden`]: floats for an adapter in 32 bits, quantised for one in 8.
#[derive(Clone, Copy)]
pub enum Inputs<'a> {
    /// `[tokens, inputs]`.
    F32(&'a [f32]),
    /// All tokens.
    Int8(&'a Activations),
}

/// `h[token, r] = x[token] . A[r]` for the given rows. Rows of `h` have at least `rank` floats.
///
/// # Panics
/// Shapes or the kind of the inputs do not fit the adapter, or the CPU has not the level.
///
/// # Safety
/// No other thread uses the same rows of `h` at the same time.
pub unsafe fn hidden(level: Level, rows: &AdapterRows<'_>, x: Inputs<'_>, h: Rows<'_>) {
    let adapter = &rows.adapter;
    assert!(level.is_available(), "this CPU has no {level:?}");
    assert!(h.width() >= adapter.rank, "rows of {} for rank {}", h.width(), adapter.rank);
    let quantised = (matches!(adapter.matrices, Matrices::Int8 { .. }), matches!(x, Inputs::Int8(_)));
    assert!(quantised.0 == quantised.1, "an adapter and inputs of which one is quantised: {quantised:?}");
    // SAFETY: passed on.
    unsafe {
        match (adapter.matrices, x) {
            (Matrices::F32 { a, .. }, Inputs::F32(x)) => exact::hidden(level, rows, a, x, h),
            (Matrices::Int8 { a, .. }, Inputs::Int8(x)) => int8::hidden(level, rows, a, x, h),
            (Matrices::F32 { .. } | Matrices::Int8 { .. }, _) => {}
        }
    }
}

/// `y[token, n] += sum over r of h[token, r] * B[r, n]` for the given rows and the columns of `columns`.
///
/// # Panics
/// Shapes do not fit each other, or the CPU has not the level.
///
/// # Safety
/// No other thread uses the same cells of `y` at the same time, nor writes to `h`.
pub unsafe fn add_columns(level: Level, rows: &AdapterRows<'_>, columns: Range<usize>, h: Rows<'_>, y: Rows<'_>) {
    let adapter = &rows.adapter;
    assert!(level.is_available(), "this CPU has no {level:?}");
    assert!(columns.end <= adapter.outputs && y.width() == adapter.outputs && h.width() >= adapter.rank);
    for part in adapter.parts {
        let Some(columns) = part.within(&columns) else { continue };
        // SAFETY: passed on; the columns are the part's, h has its ranks and y its columns.
        unsafe {
            match adapter.matrices {
                Matrices::F32 { b, .. } => exact::add_columns(level, rows.tokens, part, columns, b, h, y),
                Matrices::Int8 { b, scales, .. } => {
                    int8::add_columns(level, rows.tokens, part, columns, (b, scales), h, y);
                }
            }
        }
    }
}

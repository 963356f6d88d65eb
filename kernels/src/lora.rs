//! The two halves of an adapter: `h = x A` ([`hidden`]) and `y += h B` ([`add_columns`]).
//!
//! Tokens that share an adapter are taken four at a time, so that its matrices are read once for them. The arithmetic
//! of a token depends neither on its company nor on which range of ranks or columns is asked for at once, and is the
//! same on every instruction set: a token gets the same bits alone and in company.
//!
//! ```text
//! h[r] = sum over 16 lanes, halved until one is left, of fma chains over k in steps of 16; then the last k one by one
//! y[n] = fma(h[r], B[r, n], y[n]) for r in order
//! ```
#![allow(unsafe_code)] // Pointer arithmetic in the inner loops; bounds are checked once per call.

use std::ops::Range;

use half::f16;

use crate::{
    level::Level,
    memory,
    rows::Rows,
    simd::{Element, Simd, WIDTH, at_level},
};

/// Tokens that read a matrix together.
const TOKENS: usize = 4;

/// An adapter's share of one fused projection.
#[derive(Debug, Clone, Copy)]
pub struct Adapter<'a> {
    /// Rows of A: the ranks of all parts together.
    pub rank: usize,
    /// Columns of A, the inputs of the projection.
    pub inputs: usize,
    /// Outputs of the projection.
    pub outputs: usize,
    /// A `[rank, inputs]`, and B of each part as [`Part::tiled`] lays it out, multiplied by the adapter's scaling.
    pub matrices: Matrices<'a>,
    /// Where each module's B stands and what it adds to.
    pub parts: &'a [Part],
}

impl Adapter<'_> {
    /// Bytes of B for one column, all parts counted.
    pub(crate) fn column_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.rank).max().unwrap_or(0) * self.matrices.element_bytes()
    }

    /// Asks for what [`add_columns`] reads of B for these columns.
    pub(crate) fn fetch_columns(&self, columns: Range<usize>) {
        for part in self.parts {
            let begin = columns.start.max(part.column_begin);
            let end = columns.end.min(part.column_begin + part.columns);
            if begin < end {
                let tiles = (begin - part.column_begin) / WIDTH..(end - part.column_begin).div_ceil(WIDTH);
                let tile = part.rank * WIDTH;
                self.matrices.fetch_b(part.b_begin + tiles.start * tile..part.b_begin + tiles.end * tile);
            }
        }
    }

    /// Asks for that part of A which is to all of it as `part` is to `0..of`.
    pub(crate) fn fetch_hidden(&self, part: Range<usize>, of: usize) {
        let cut = |at: usize| self.rank * self.inputs * at / of;
        self.matrices.fetch_a(cut(part.start)..cut(part.end));
    }
}

/// A and B.
#[derive(Debug, Clone, Copy)]
pub enum Matrices<'a> {
    /// In 32 bits.
    F32 {
        /// `[rank, inputs]`.
        a: &'a [f32],
        /// All parts' B.
        b: &'a [f32],
    },
    /// In 16 bits.
    F16 {
        /// `[rank, inputs]`.
        a: &'a [f16],
        /// All parts' B.
        b: &'a [f16],
    },
}

impl Matrices<'_> {
    fn element_bytes(&self) -> usize {
        match self {
            Self::F32 { .. } => size_of::<f32>(),
            Self::F16 { .. } => size_of::<f16>(),
        }
    }

    fn fetch_a(&self, elements: Range<usize>) {
        match self {
            Self::F32 { a, .. } => memory::fetch(a, elements),
            Self::F16 { a, .. } => memory::fetch(a, elements),
        }
    }

    fn fetch_b(&self, elements: Range<usize>) {
        match self {
            Self::F32 { b, .. } => memory::fetch(b, elements),
            Self::F16 { b, .. } => memory::fetch(b, elements),
        }
    }
}

/// One module's B within a fused projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First row of A that belongs to it.
    pub rank_begin: usize,
    /// Rows of A that belong to it.
    pub rank: usize,
    /// First output column it adds to.
    pub column_begin: usize,
    /// Output columns it adds to.
    pub columns: usize,
    /// Where its B begins, in elements.
    pub b_begin: usize,
}

impl Part {
    /// Elements of its B.
    pub fn b_elements(&self) -> usize {
        self.columns.next_multiple_of(WIDTH) * self.rank
    }

    /// Its B as the kernels read it, memory in order: `[columns / 16, rank, 16]`, the last columns filled up with zeros.
    /// `b` gives the element of a rank and a column.
    pub fn tiled(&self, b: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let element = |index: usize| {
            let (tile, rank, column) = (index / WIDTH / self.rank, index / WIDTH % self.rank, index % WIDTH);
            let column = tile * WIDTH + column;
            if column < self.columns { b(rank, column) } else { 0.0 }
        };
        (0..self.b_elements()).map(element).collect()
    }
}

/// Tokens (rows of a step) that share an adapter.
#[derive(Debug, Clone, Copy)]
pub struct Share<'a> {
    /// What they share.
    pub adapter: Adapter<'a>,
    /// Their numbers, each once.
    pub tokens: &'a [u32],
}

/// `h[token, r] = x[token] . A[r]` for the share's tokens and the ranks of `ranks`. Rows of `x` are `inputs` long,
/// those of `h` at least `rank`.
///
/// # Panics
/// Shapes do not fit each other, or the CPU has not the level.
///
/// # Safety
/// No other thread uses the same cells of `h` at the same time.
pub unsafe fn hidden(level: Level, share: &Share<'_>, ranks: Range<usize>, x: &[f32], h: Rows<'_>) {
    let adapter = &share.adapter;
    let k = adapter.inputs;
    assert!(level.is_available(), "this CPU has no {level:?}");
    assert!(ranks.end <= adapter.rank && h.width() >= adapter.rank, "ranks {ranks:?} of {}", adapter.rank);
    for tokens in share.tokens.chunks(TOKENS) {
        let mut rows = [(std::ptr::null(), std::ptr::null_mut()); TOKENS];
        for (row, &token) in rows.iter_mut().zip(tokens) {
            *row = (x[token as usize * k..][..k].as_ptr(), h.row(token as usize));
        }
        let (rows, ranks) = (&rows[..tokens.len()], ranks.clone());
        // SAFETY: every x has k floats and every h row at least `rank`, A has rank * k elements, all checked here and
        // above; the CPU has the level.
        unsafe {
            match adapter.matrices {
                Matrices::F32 { a, .. } => {
                    assert!(a.len() >= adapter.rank * k, "A is too short");
                    hidden_at(level, a.as_ptr(), k, ranks, rows);
                }
                Matrices::F16 { a, .. } => {
                    assert!(a.len() >= adapter.rank * k, "A is too short");
                    hidden_at(level, a.as_ptr(), k, ranks, rows);
                }
            }
        }
    }
}

/// `y[token, n] += sum over r of h[token, r] * B[r, n]` for the share's tokens and the columns of `columns`.
///
/// # Panics
/// Shapes do not fit each other, or the CPU has not the level.
///
/// # Safety
/// No other thread uses the same cells of `y` at the same time, nor writes to `h`.
pub unsafe fn add_columns(level: Level, share: &Share<'_>, columns: Range<usize>, h: Rows<'_>, y: Rows<'_>) {
    let adapter = &share.adapter;
    assert!(level.is_available(), "this CPU has no {level:?}");
    assert!(columns.end <= adapter.outputs && y.width() == adapter.outputs && h.width() >= adapter.rank);
    for part in adapter.parts {
        let begin = columns.start.max(part.column_begin);
        let end = columns.end.min(part.column_begin + part.columns);
        if begin >= end {
            continue;
        }
        assert!(part.rank_begin + part.rank <= adapter.rank, "{part:?} is not within rank {}", adapter.rank);
        let shape = Shape {
            rank_begin: part.rank_begin,
            rank: part.rank,
            column_begin: part.column_begin,
            begin: begin - part.column_begin,
            end: end - part.column_begin,
        };
        let last = part.b_begin + part.b_elements();
        for tokens in share.tokens.chunks(TOKENS) {
            let mut rows = [(std::ptr::null(), std::ptr::null_mut()); TOKENS];
            for (row, &token) in rows.iter_mut().zip(tokens) {
                *row = (h.row(token as usize).cast_const(), y.row(token as usize));
            }
            let rows = &rows[..tokens.len()];
            // SAFETY: the part's B lies within `b` (checked), h rows have `rank` floats and y rows `outputs` (checked
            // above), and the CPU has the level.
            unsafe {
                match adapter.matrices {
                    Matrices::F32 { b, .. } => {
                        assert!(last <= b.len(), "B is too short for {part:?}");
                        columns_at(level, b.as_ptr().add(part.b_begin), shape, rows);
                    }
                    Matrices::F16 { b, .. } => {
                        assert!(last <= b.len(), "B is too short for {part:?}");
                        columns_at(level, b.as_ptr().add(part.b_begin), shape, rows);
                    }
                }
            }
        }
    }
}

/// Columns `begin..end` of one part's B, of which the first is added to column `column_begin`.
#[derive(Clone, Copy)]
struct Shape {
    rank_begin: usize,
    rank: usize,
    column_begin: usize,
    begin: usize,
    end: usize,
}

/// What a token reads and what it writes.
type Token = (*const f32, *mut f32);

unsafe fn hidden_at<E: Element>(level: Level, a: *const E, k: usize, ranks: Range<usize>, tokens: &[Token]) {
    // SAFETY: passed on; the caller checked the level.
    unsafe { at_level!(level, hidden_with, (a: *const E, k: usize, ranks: Range<usize>, tokens: &[Token])) }
}

unsafe fn columns_at<E: Element>(level: Level, b: *const E, shape: Shape, tokens: &[Token]) {
    // SAFETY: passed on; the caller checked the level.
    unsafe { at_level!(level, columns_with, (b: *const E, shape: Shape, tokens: &[Token])) }
}

#[inline(always)]
unsafe fn hidden_with<S: Simd, E: Element>(a: *const E, k: usize, ranks: Range<usize>, tokens: &[Token]) {
    // As many ranks at once as leave enough chains of sums and fit the registers of AVX2.
    let together = match tokens.len() {
        1 => 4,
        2 => 2,
        _ => 1,
    };
    let mut r = ranks.start;
    while r < ranks.end {
        let whole = r + together <= ranks.end;
        // SAFETY: passed on; ranks stay within `ranks`, and there are as many tokens as is said.
        unsafe {
            match (tokens.len(), whole) {
                (1, true) => dots::<S, E, 4, 1>(a, k, r, tokens),
                (1, false) => dots::<S, E, 1, 1>(a, k, r, tokens),
                (2, true) => dots::<S, E, 2, 2>(a, k, r, tokens),
                (2, false) => dots::<S, E, 1, 2>(a, k, r, tokens),
                (3, _) => dots::<S, E, 1, 3>(a, k, r, tokens),
                _ => dots::<S, E, 1, 4>(a, k, r, tokens),
            }
        }
        r += if whole { together } else { 1 };
    }
}

/// `RANKS` rows of A against `COUNT` inputs, all sums in registers.
#[inline(always)]
unsafe fn dots<S: Simd, E: Element, const RANKS: usize, const COUNT: usize>(
    a: *const E,
    k: usize,
    rank: usize,
    tokens: &[Token],
) {
    // SAFETY: rows rank..rank+RANKS of A and k floats of each input are valid; `tokens` has COUNT entries.
    unsafe {
        let mut sums = [[S::zero(); COUNT]; RANKS];
        let whole = k - k % WIDTH;
        let mut i = 0;
        while i < whole {
            let mut xs = [S::zero(); COUNT];
            for (t, x) in xs.iter_mut().enumerate() {
                *x = S::load(tokens.get_unchecked(t).0.add(i));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let row = a.add((rank + r) * k + i);
                memory::fetch_line(row.wrapping_add(RANKS * k).cast());
                let row = E::load::<S>(row);
                for (sum, &x) in sums.iter_mut().zip(&xs) {
                    *sum = sum.add_product(row, x);
                }
            }
            i += WIDTH;
        }
        for (r, sums) in sums.iter().enumerate() {
            for (t, sum) in sums.iter().enumerate() {
                let (x, h) = *tokens.get_unchecked(t);
                let mut total = sum.sum();
                for j in whole..k {
                    let weight = (*a.add((rank + r) * k + j)).widen();
                    total = weight.mul_add(*x.add(j), total);
                }
                *h.add(rank + r) = total;
            }
        }
    }
}

/// Tiles in order, as many at once as leave enough chains of sums.
#[inline(always)]
unsafe fn columns_with<S: Simd, E: Element>(b: *const E, shape: Shape, tokens: &[Token]) {
    let together = match tokens.len() {
        1 => 4,
        2 => 2,
        _ => 1,
    };
    let mut n = shape.begin;
    while n < shape.end {
        let whole = n.is_multiple_of(WIDTH);
        // SAFETY: passed on; columns stay within the shape's, and there are as many tokens as is said.
        unsafe {
            if whole && n + together * WIDTH <= shape.end {
                match tokens.len() {
                    1 => sums::<S, E, 4, 1>(b, shape, n, tokens),
                    2 => sums::<S, E, 2, 2>(b, shape, n, tokens),
                    3 => sums::<S, E, 1, 3>(b, shape, n, tokens),
                    _ => sums::<S, E, 1, 4>(b, shape, n, tokens),
                }
                n += together * WIDTH;
            } else if whole && n + WIDTH <= shape.end {
                match tokens.len() {
                    1 => sums::<S, E, 1, 1>(b, shape, n, tokens),
                    _ => sums::<S, E, 1, 2>(b, shape, n, tokens),
                }
                n += WIDTH;
            } else {
                column(b, shape, n, tokens);
                n += 1;
            }
        }
    }
}

/// One column, of a tile that is not wanted whole.
#[inline(always)]
unsafe fn column<E: Element>(b: *const E, shape: Shape, n: usize, tokens: &[Token]) {
    for &(h, y) in tokens {
        // SAFETY: the column is one of B and of y, and h has all ranks.
        unsafe {
            let mut total = *y.add(shape.column_begin + n);
            for r in 0..shape.rank {
                let weight = (*b.add((n / WIDTH * shape.rank + r) * WIDTH + n % WIDTH)).widen();
                total = (*h.add(shape.rank_begin + r)).mul_add(weight, total);
            }
            *y.add(shape.column_begin + n) = total;
        }
    }
}

/// `TILES` whole tiles for `COUNT` tokens, all sums in registers.
#[inline(always)]
unsafe fn sums<S: Simd, E: Element, const TILES: usize, const COUNT: usize>(
    b: *const E,
    shape: Shape,
    n: usize,
    tokens: &[Token],
) {
    // SAFETY: the tiles from column n on are valid, and so are these columns of each y; `tokens` has COUNT entries.
    unsafe {
        let tile = shape.rank * WIDTH;
        let first = b.add(n / WIDTH * tile);
        let mut totals = [[S::zero(); TILES]; COUNT];
        for (t, totals) in totals.iter_mut().enumerate() {
            let y = tokens.get_unchecked(t).1.add(shape.column_begin + n);
            for (v, total) in totals.iter_mut().enumerate() {
                *total = S::load(y.add(v * WIDTH));
            }
        }
        for r in 0..shape.rank {
            let mut weights = [S::zero(); TILES];
            for (v, weight) in weights.iter_mut().enumerate() {
                let row = first.add(v * tile + r * WIDTH);
                memory::fetch_line(row.wrapping_add(TILES * tile).cast());
                *weight = E::load::<S>(row);
            }
            for (t, totals) in totals.iter_mut().enumerate() {
                let h = S::splat(*tokens.get_unchecked(t).0.add(shape.rank_begin + r));
                for (total, &weight) in totals.iter_mut().zip(&weights) {
                    *total = total.add_product(h, weight);
                }
            }
        }
        for (t, totals) in totals.into_iter().enumerate() {
            let y = tokens.get_unchecked(t).1.add(shape.column_begin + n);
            for (v, total) in totals.into_iter().enumerate() {
                total.store(y.add(v * WIDTH));
            }
        }
    }
}

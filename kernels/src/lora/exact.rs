//! Adapters in 32 bits.
//!
//! ```text
//! h[r] = sum over 16 lanes, halved until one is left, of fma chains over k in steps of 16; then the last k one by one
//! y[n] = fma(h[r], B[r, n], y[n]) for r in order
//! ```
#![allow(unsafe_code)] // Pointer arithmetic in the inner loops; bounds are checked once per call.

use std::ops::Range;

use super::{AdapterRows, AddColumns, FactorError, Pair, Part, TOKENS, walk};
use crate::{
    level::Level,
    memory,
    rows::Rows,
    simd::{Simd, WIDTH, at_level},
};

/// Copies A of all pairs to `a`, and B of each in tiles to `b`, whose padding is zero already.
pub(super) fn pack(parts: &[Part], pairs: &[Pair<'_>], a: &mut [f32], b: &mut [f32]) -> Result<(), FactorError> {
    let rows = pairs.iter().flat_map(|pair| pair.a);
    a.iter_mut().zip(rows).for_each(|(to, weight)| *to = *weight);
    for (index, (part, pair)) in parts.iter().zip(pairs).enumerate() {
        let mut finite = true;
        for (n, column) in pair.b.chunks_exact(part.rank).enumerate() {
            for (r, weight) in column.iter().enumerate() {
                let weight = weight * pair.factor;
                finite &= weight.is_finite();
                b[part.b_begin + n / WIDTH * part.tile + r * WIDTH + n % WIDTH] = weight;
            }
        }
        if !finite {
            return Err(FactorError { pair: index });
        }
    }
    Ok(())
}

/// See [`super::hidden`].
pub(super) unsafe fn hidden(level: Level, rows: &AdapterRows<'_>, a: &[f32], x: &[f32], h: Rows<'_>) {
    let (rank, k) = (rows.adapter.rank, rows.adapter.inputs);
    assert!(a.len() >= rank * k, "A is too short");
    for tokens in rows.tokens.chunks(TOKENS) {
        let mut rows = [(std::ptr::null(), std::ptr::null_mut()); TOKENS];
        for (row, &token) in rows.iter_mut().zip(tokens) {
            *row = (x[token as usize * k..][..k].as_ptr(), h.row(token as usize));
        }
        // SAFETY: every x has k floats and every h row at least `rank`, A has rank * k elements, all checked here and by
        // the caller; the CPU has the level.
        unsafe { hidden_at(level, a.as_ptr(), k, rank, &rows[..tokens.len()]) };
    }
}

/// See [`super::add_columns`], for the columns of one part.
pub(super) unsafe fn add_columns(
    level: Level,
    tokens: &[u32],
    part: &Part,
    columns: Range<usize>,
    b: &[f32],
    h: Rows<'_>,
    y: Rows<'_>,
) {
    assert!(part.b_end() <= b.len(), "B is too short for {part:?}");
    let Part { rank_begin, rank, column_begin, .. } = *part;
    let shape = Shape { rank_begin, rank, column_begin, begin: columns.start, end: columns.end };
    for tokens in tokens.chunks(TOKENS) {
        let mut rows = [(std::ptr::null(), std::ptr::null_mut()); TOKENS];
        for (row, &token) in rows.iter_mut().zip(tokens) {
            *row = (h.row(token as usize).cast_const(), y.row(token as usize));
        }
        // SAFETY: the part's B lies within `b` (checked), h rows have its ranks and y rows its columns by the caller's
        // checks, and the CPU has the level.
        unsafe { columns_at(level, b.as_ptr().add(part.b_begin), shape, &rows[..tokens.len()]) };
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

/// Input and output of a token.
type Token = (*const f32, *mut f32);

unsafe fn hidden_at(level: Level, a: *const f32, k: usize, rank: usize, tokens: &[Token]) {
    // SAFETY: passed on; the caller checked the level.
    unsafe { at_level!(level, hidden_with, (a: *const f32, k: usize, rank: usize, tokens: &[Token])) }
}

unsafe fn columns_at(level: Level, b: *const f32, shape: Shape, tokens: &[Token]) {
    // SAFETY: passed on; the caller checked the level.
    unsafe { at_level!(level, columns_with, (b: *const f32, shape: Shape, tokens: &[Token])) }
}

#[inline(always)]
unsafe fn hidden_with<S: Simd>(a: *const f32, k: usize, rank: usize, tokens: &[Token]) {
    // As many ranks at once as leave enough chains of sums and fit the registers of AVX2.
    let together = match tokens.len() {
        1 => 4,
        2 => 2,
        _ => 1,
    };
    let mut r = 0;
    while r < rank {
        let whole = r + together <= rank;
        // SAFETY: passed on; ranks stay below `rank`, and there are as many tokens as is said.
        unsafe {
            match (tokens.len(), whole) {
                (1, true) => dots::<S, 4, 1>(a, k, r, tokens),
                (1, false) => dots::<S, 1, 1>(a, k, r, tokens),
                (2, true) => dots::<S, 2, 2>(a, k, r, tokens),
                (2, false) => dots::<S, 1, 2>(a, k, r, tokens),
                (3, _) => dots::<S, 1, 3>(a, k, r, tokens),
                _ => dots::<S, 1, 4>(a, k, r, tokens),
            }
        }
        r += if whole { together } else { 1 };
    }
}

/// `RANKS` rows of A against `COUNT` inputs, all sums in registers.
#[inline(always)]
unsafe fn dots<S: Simd, const RANKS: usize, const COUNT: usize>(
    a: *const f32,
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
                let row = S::load(row);
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
                    let weight = *a.add((rank + r) * k + j);
                    total = weight.mul_add(*x.add(j), total);
                }
                *h.add(rank + r) = total;
            }
        }
    }
}

#[inline(always)]
unsafe fn columns_with<S: Simd>(b: *const f32, shape: Shape, tokens: &[Token]) {
    // SAFETY: passed on; the columns are the shape's.
    unsafe { walk::<S, _>(&Add { b, shape, tokens }, shape.begin..shape.end, tokens.len()) }
}

/// A part's B, and the tokens to add to.
struct Add<'a> {
    b: *const f32,
    shape: Shape,
    tokens: &'a [Token],
}

impl<S: Simd> AddColumns<S> for Add<'_> {
    #[inline(always)]
    unsafe fn tiles<const TILES: usize, const COUNT: usize>(&self, n: usize) {
        // SAFETY: passed on.
        unsafe { sums::<S, TILES, COUNT>(self.b, self.shape, n, self.tokens) }
    }

    #[inline(always)]
    unsafe fn column(&self, n: usize) {
        // SAFETY: passed on.
        unsafe { column(self.b, self.shape, n, self.tokens) }
    }
}

/// One column, of a tile that is not wanted whole.
#[inline(always)]
unsafe fn column(b: *const f32, shape: Shape, n: usize, tokens: &[Token]) {
    for &(h, y) in tokens {
        // SAFETY: the column is one of B and of y, and h has all ranks.
        unsafe {
            let mut total = *y.add(shape.column_begin + n);
            for r in 0..shape.rank {
                let weight = *b.add((n / WIDTH * shape.rank + r) * WIDTH + n % WIDTH);
                total = (*h.add(shape.rank_begin + r)).mul_add(weight, total);
            }
            *y.add(shape.column_begin + n) = total;
        }
    }
}

/// `TILES` whole tiles for `COUNT` tokens, all sums in registers.
#[inline(always)]
unsafe fn sums<S: Simd, const TILES: usize, const COUNT: usize>(
    b: *const f32,
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
                *weight = S::load(row);
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

//! The two halves of an adapter: `h = x A` ([`hidden`]) and `y += h B` ([`add_columns`]).
//!
//! Both work on a [`Tile`]: up to four tokens that share an adapter, so that its matrices are read once for all of
//! them. A tile's arithmetic does not depend on how many tokens are in it or on which range of ranks or columns is
//! asked for at once: a token gets the same bits alone and in company.
#![allow(unsafe_code)] // Pointer arithmetic in the inner loops; bounds are checked once per call.

use std::ops::Range;

#[cfg(test)]
use half::f16;
use slm_convert::pack::{Matrices, PackedGroup};

#[cfg(target_arch = "x86_64")]
use super::simd::x86::{Avx2, Avx512};
use super::simd::{Element, Level, Portable, Simd};

/// Tokens of a tile at most.
pub(crate) const TILE: usize = 4;

/// Tokens that share an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    /// Their numbers; the first `len` count.
    pub(crate) tokens: [u32; TILE],
    pub(crate) len: usize,
}

impl Tile {
    fn tokens(&self) -> impl Iterator<Item = usize> {
        self.tokens[..self.len].iter().map(|&t| t as usize)
    }
}

/// Rows of floats of equal length, written by several threads to ranges that do not overlap.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    data: *mut f32,
    len: usize,
    width: usize,
    _borrow: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: a view of exclusively borrowed floats; who writes where is the contract of the functions that take it.
unsafe impl Send for Rows<'_> {}
// SAFETY: as above.
unsafe impl Sync for Rows<'_> {}

impl<'a> Rows<'a> {
    /// `data` as rows of `width`.
    pub(crate) fn new(data: &'a mut [f32], width: usize) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), width, _borrow: std::marker::PhantomData }
    }

    fn row(&self, index: usize) -> *mut f32 {
        assert!((index + 1) * self.width <= self.len, "row {index} of width {} in {}", self.width, self.len);
        // SAFETY: within the borrowed range, checked above.
        unsafe { self.data.add(index * self.width) }
    }
}

/// `h[token, r] = x[token] . A[r]` for the tile's tokens and the ranks of `ranks`.
///
/// # Safety
/// The CPU must have `level`; no other thread may use the same cells of `h` at the same time.
pub(crate) unsafe fn hidden(
    level: Level,
    group: &PackedGroup,
    tile: &Tile,
    ranks: Range<usize>,
    x: &[f32],
    h: Rows<'_>,
) {
    assert!(ranks.end <= group.rank && h.width >= group.rank);
    let k = group.inputs;
    let xs = tile.tokens().map(|t| x[t * k..(t + 1) * k].as_ptr());
    let mut tokens = [(std::ptr::null(), std::ptr::null_mut()); TILE];
    for (slot, (x, t)) in tokens.iter_mut().zip(xs.zip(tile.tokens())) {
        *slot = (x, h.row(t));
    }
    let tokens = &tokens[..tile.len];
    // SAFETY: every x has k floats and every h row at least `rank` (both checked above), A has rank * k elements by
    // construction, and the caller vouches for the instruction set.
    unsafe {
        match &group.matrices {
            Matrices::F32 { a, .. } => {
                assert!(a.len() == group.rank * k);
                hidden_at(level, a.as_ptr(), k, ranks, tokens);
            }
            Matrices::F16 { a, .. } => {
                assert!(a.len() == group.rank * k);
                hidden_at(level, a.as_ptr(), k, ranks, tokens);
            }
        }
    }
}

/// `y[token, n] += sum over r of h[token, r] * B[r, n]` for the tile's tokens and the columns of `columns`.
///
/// # Safety
/// The CPU must have `level`; no other thread may use the same cells of `y` at the same time.
pub(crate) unsafe fn add_columns(
    level: Level,
    group: &PackedGroup,
    tile: &Tile,
    columns: Range<usize>,
    h: Rows<'_>,
    y: Rows<'_>,
) {
    assert!(columns.end <= group.outputs && y.width == group.outputs && h.width >= group.rank);
    let mut tokens = [(std::ptr::null(), std::ptr::null_mut()); TILE];
    for (slot, t) in tokens.iter_mut().zip(tile.tokens()) {
        *slot = (h.row(t).cast_const(), y.row(t));
    }
    let tokens = &tokens[..tile.len];
    for part in &group.parts {
        let begin = columns.start.max(part.column_begin);
        let end = columns.end.min(part.column_begin + part.columns);
        if begin >= end {
            continue;
        }
        let shape = Shape {
            rank_begin: part.rank_begin,
            rank: part.rank,
            stride: part.columns,
            skip: begin - part.column_begin,
            column: begin,
            count: end - begin,
        };
        let last = part.b_begin + part.rank * part.columns;
        // SAFETY: the part's B lies within `b` (checked), h rows have `rank` floats and y rows `outputs` (checked
        // above), and the caller vouches for the instruction set.
        unsafe {
            match &group.matrices {
                Matrices::F32 { b, .. } => {
                    assert!(last <= b.len());
                    columns_at(level, b.as_ptr().add(part.b_begin), shape, tokens);
                }
                Matrices::F16 { b, .. } => {
                    assert!(last <= b.len());
                    columns_at(level, b.as_ptr().add(part.b_begin), shape, tokens);
                }
            }
        }
    }
}

/// Which piece of one part's B is added to which columns.
#[derive(Clone, Copy)]
struct Shape {
    rank_begin: usize,
    rank: usize,
    stride: usize,
    skip: usize,
    column: usize,
    count: usize,
}

type Token = (*const f32, *mut f32);

unsafe fn hidden_at<E: Element>(level: Level, a: *const E, k: usize, ranks: Range<usize>, tokens: &[Token]) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<E: Element>(a: *const E, k: usize, ranks: Range<usize>, tokens: &[Token]) {
        // SAFETY: passed on.
        unsafe { hidden_with::<Avx2, E>(a, k, ranks, tokens) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512<E: Element>(a: *const E, k: usize, ranks: Range<usize>, tokens: &[Token]) {
        // SAFETY: passed on.
        unsafe { hidden_with::<Avx512, E>(a, k, ranks, tokens) }
    }
    // SAFETY: passed on; `level` says what the CPU has.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512(a, k, ranks, tokens),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2(a, k, ranks, tokens),
            _ => hidden_with::<Portable, E>(a, k, ranks, tokens),
        }
    }
}

unsafe fn columns_at<E: Element>(level: Level, b: *const E, shape: Shape, tokens: &[Token]) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<E: Element>(b: *const E, shape: Shape, tokens: &[Token]) {
        // SAFETY: passed on.
        unsafe { columns_with::<Avx2, E>(b, shape, tokens) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512<E: Element>(b: *const E, shape: Shape, tokens: &[Token]) {
        // SAFETY: passed on.
        unsafe { columns_with::<Avx512, E>(b, shape, tokens) }
    }
    // SAFETY: passed on; `level` says what the CPU has.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512(b, shape, tokens),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2(b, shape, tokens),
            _ => columns_with::<Portable, E>(b, shape, tokens),
        }
    }
}

#[inline(always)]
unsafe fn hidden_with<S: Simd, E: Element>(a: *const E, k: usize, ranks: Range<usize>, tokens: &[Token]) {
    // SAFETY: passed on; blocks of ranks stay within `ranks`.
    unsafe {
        let mut r = ranks.start;
        while r + 4 <= ranks.end {
            match tokens.len() {
                1 => dots::<S, E, 4, 1>(a, k, r, tokens),
                2 => dots::<S, E, 4, 2>(a, k, r, tokens),
                3 => dots::<S, E, 4, 3>(a, k, r, tokens),
                _ => dots::<S, E, 4, 4>(a, k, r, tokens),
            }
            r += 4;
        }
        while r < ranks.end {
            for token in tokens {
                dots::<S, E, 1, 1>(a, k, r, std::slice::from_ref(token));
            }
            r += 1;
        }
    }
}

/// `RANKS` rows of A against `TOKENS` inputs, all sums in registers.
#[inline(always)]
unsafe fn dots<S: Simd, E: Element, const RANKS: usize, const TOKENS: usize>(
    a: *const E,
    k: usize,
    rank: usize,
    tokens: &[Token],
) {
    // SAFETY: rows rank..rank+RANKS of A and k floats of each input are valid; `tokens` has TOKENS entries.
    unsafe {
        let mut sums = [[S::zero(); TOKENS]; RANKS];
        let whole = k - k % S::WIDTH;
        let mut i = 0;
        while i < whole {
            let mut xs = [S::zero(); TOKENS];
            for (t, x) in xs.iter_mut().enumerate() {
                *x = S::load(tokens.get_unchecked(t).0.add(i));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let row = E::load::<S>(a.add((rank + r) * k + i));
                for (sum, &x) in sums.iter_mut().zip(&xs) {
                    *sum = sum.add_product(row, x);
                }
            }
            i += S::WIDTH;
        }
        for (r, sums) in sums.iter().enumerate() {
            for (t, sum) in sums.iter().enumerate() {
                let (x, h) = *tokens.get_unchecked(t);
                let mut total = sum.sum();
                for j in whole..k {
                    let weight: f32 = (*a.add((rank + r) * k + j)).into();
                    total += weight * *x.add(j);
                }
                *h.add(rank + r) = total;
            }
        }
    }
}

#[inline(always)]
unsafe fn columns_with<S: Simd, E: Element>(b: *const E, shape: Shape, tokens: &[Token]) {
    // SAFETY: passed on; vectors stay within `count` columns.
    unsafe {
        let mut n = 0;
        while n + 2 * S::WIDTH <= shape.count {
            match tokens.len() {
                1 => sums::<S, E, 2, 1>(b, shape, n, tokens),
                2 => sums::<S, E, 2, 2>(b, shape, n, tokens),
                3 => sums::<S, E, 2, 3>(b, shape, n, tokens),
                _ => sums::<S, E, 2, 4>(b, shape, n, tokens),
            }
            n += 2 * S::WIDTH;
        }
        while n < shape.count {
            for &(h, y) in tokens {
                let h = h.add(shape.rank_begin);
                let mut total = *y.add(shape.column + n);
                for r in 0..shape.rank {
                    let weight: f32 = (*b.add(r * shape.stride + shape.skip + n)).into();
                    total = (*h.add(r)).mul_add(weight, total);
                }
                *y.add(shape.column + n) = total;
            }
            n += 1;
        }
    }
}

/// `VECTORS` vectors of columns for `TOKENS` tokens, all sums in registers.
#[inline(always)]
unsafe fn sums<S: Simd, E: Element, const VECTORS: usize, const TOKENS: usize>(
    b: *const E,
    shape: Shape,
    n: usize,
    tokens: &[Token],
) {
    // SAFETY: columns n..n+VECTORS*WIDTH of each row of B and of each y are valid; `tokens` has TOKENS entries.
    unsafe {
        let mut totals = [[S::zero(); VECTORS]; TOKENS];
        for (t, totals) in totals.iter_mut().enumerate() {
            for (v, total) in totals.iter_mut().enumerate() {
                *total = S::load(tokens.get_unchecked(t).1.add(shape.column + n + v * S::WIDTH));
            }
        }
        for r in 0..shape.rank {
            let row = b.add(r * shape.stride + shape.skip + n);
            let mut weights = [S::zero(); VECTORS];
            for (v, weight) in weights.iter_mut().enumerate() {
                *weight = E::load::<S>(row.add(v * S::WIDTH));
            }
            for (t, totals) in totals.iter_mut().enumerate() {
                let h = S::splat(*tokens.get_unchecked(t).0.add(shape.rank_begin + r));
                for (total, &weight) in totals.iter_mut().zip(&weights) {
                    *total = total.add_product(h, weight);
                }
            }
        }
        for (t, totals) in totals.iter().enumerate() {
            for (v, total) in totals.iter().enumerate() {
                total.store(tokens.get_unchecked(t).1.add(shape.column + n + v * S::WIDTH));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slm_convert::pack::Part;

    /// Numbers that are neither round nor in a pattern of the lanes, exact in 16 bits.
    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| f16::from_f32((((i + 1) * (seed + 7919)) % 997) as f32 / 499.0 - 1.0).to_f32()).collect()
    }

    /// A group of two parts over `outputs` columns, of which the last few belong to none.
    fn group(ranks: [usize; 2], inputs: usize, outputs: usize, narrow: bool) -> PackedGroup {
        let first = outputs / 3;
        let columns = [first, outputs - first - outputs / 7];
        let rank = ranks[0] + ranks[1];
        let (a, b) = (numbers(rank * inputs, 1), numbers(ranks[0] * columns[0] + ranks[1] * columns[1], 2));
        let parts = vec![
            Part { rank_begin: 0, rank: ranks[0], column_begin: 0, columns: columns[0], b_begin: 0 },
            Part {
                rank_begin: ranks[0],
                rank: ranks[1],
                column_begin: first,
                columns: columns[1],
                b_begin: ranks[0] * columns[0],
            },
        ];
        let narrowed = |v: Vec<f32>| v.into_iter().map(f16::from_f32).collect::<Vec<_>>();
        let matrices = if narrow { Matrices::F16 { a: narrowed(a), b: narrowed(b) } } else { Matrices::F32 { a, b } };
        PackedGroup { rank, inputs, outputs, matrices, parts }
    }

    /// The definition, in f64.
    fn reference(group: &PackedGroup, tokens: &[u32], x: &[f32], y: &mut [f32]) {
        let (a, b): (Vec<f32>, Vec<f32>) = match &group.matrices {
            Matrices::F32 { a, b } => (a.clone(), b.clone()),
            Matrices::F16 { a, b } => (a.iter().map(|v| v.to_f32()).collect(), b.iter().map(|v| v.to_f32()).collect()),
        };
        for &token in tokens {
            let token = token as usize;
            let x = &x[token * group.inputs..][..group.inputs];
            let dot = |r: usize| -> f64 {
                a[r * group.inputs..][..group.inputs].iter().zip(x).map(|(&a, &x)| f64::from(a) * f64::from(x)).sum()
            };
            let h: Vec<f64> = (0..group.rank).map(dot).collect();
            for part in &group.parts {
                for n in 0..part.columns {
                    let sum: f64 = (0..part.rank)
                        .map(|r| h[part.rank_begin + r] * f64::from(b[part.b_begin + r * part.columns + n]))
                        .sum();
                    y[token * group.outputs + part.column_begin + n] += sum as f32;
                }
            }
        }
    }

    fn apply(level: Level, group: &PackedGroup, tokens: &[u32], cuts: usize, x: &[f32], y: &mut [f32]) {
        let mut h = vec![0.0; y.len() / group.outputs * group.rank];
        let (h, y) = (Rows::new(&mut h, group.rank), Rows::new(y, group.outputs));
        for chunk in tokens.chunks(TILE) {
            let mut tile = Tile { tokens: [0; TILE], len: chunk.len() };
            tile.tokens[..chunk.len()].copy_from_slice(chunk);
            for cut in 0..cuts {
                let ranks = cut * group.rank / cuts..(cut + 1) * group.rank / cuts;
                // SAFETY: one thread; `level` is one of those available.
                unsafe { hidden(level, group, &tile, ranks, x, h) };
            }
            for cut in 0..cuts {
                let columns = cut * group.outputs / cuts..(cut + 1) * group.outputs / cuts;
                // SAFETY: as above.
                unsafe { add_columns(level, group, &tile, columns, h, y) };
            }
        }
    }

    #[test]
    fn every_instruction_set_agrees_with_the_definition_over_awkward_shapes() {
        for (ranks, inputs, outputs) in [([1, 2], 5, 9), ([4, 3], 64, 70), ([16, 16], 576, 960), ([7, 64], 131, 333)] {
            for narrow in [false, true] {
                let group = group(ranks, inputs, outputs, narrow);
                let tokens: Vec<u32> = vec![6, 0, 3, 5, 1, 2];
                let x = numbers(7 * inputs, 3);
                let mut expected = numbers(7 * outputs, 4);
                let start = expected.clone();
                reference(&group, &tokens, &x, &mut expected);
                for level in Level::available() {
                    for cuts in [1, 2, 3] {
                        let mut y = start.clone();
                        apply(level, &group, &tokens, cuts, &x, &mut y);
                        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
                        for (i, (got, want)) in y.iter().zip(&expected).enumerate() {
                            let error = (got - want).abs() / largest;
                            assert!(
                                error < 1e-5,
                                "{level:?} {ranks:?} {inputs}x{outputs} cuts {cuts}: y[{i}] {got} for {want}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_token_gets_the_same_bits_alone_and_in_company() {
        let group = group([16, 8], 576, 960, true);
        let x = numbers(5 * 576, 5);
        for level in Level::available() {
            let mut together = vec![0.5; 5 * 960];
            apply(level, &group, &[4, 1, 0, 2], 1, &x, &mut together);
            for token in [4, 1, 0, 2] {
                let mut alone = vec![0.5; 5 * 960];
                apply(level, &group, &[token], 2, &x, &mut alone);
                let row = token as usize * 960..(token as usize + 1) * 960;
                assert_eq!(alone[row.clone()], together[row], "{level:?}");
            }
        }
    }

    #[test]
    fn tokens_without_the_adapter_are_not_touched() {
        let group = group([2, 2], 16, 24, false);
        let mut y = vec![1.25; 3 * 24];
        apply(Level::best(), &group, &[1], 1, &numbers(3 * 16, 1), &mut y);
        assert!(y[..24].iter().chain(&y[48..]).all(|&v| v == 1.25) && y[24..48].iter().any(|&v| v != 1.25));
    }
}

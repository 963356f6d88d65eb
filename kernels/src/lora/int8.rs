//! Adapters in 8 bits.
//!
//! A is an ordinary quantised matrix ([`Format::Q8Scale32`]), so the kernels of linear layers compute `h`. B has a
//! scale for each rank, which is multiplied into `h` before that is rounded to 16 bits. For each 64 ranks, whose sums
//! are exact:
//!
//! ```text
//! g[r] = h[r] * s[r];  u = max |g| / 32767;  q[r] = g[r] / u, rounded to the nearest integer, even on a tie
//! y[n] = fma(round(sum over r of q[r] * B[r, n]), u, y[n])
//! ```
#![allow(unsafe_code)] // Pointer arithmetic in the inner loops; bounds are checked once per call.

use std::ops::Range;

use super::{AdapterRows, AddColumns, FactorError, Pair, Part, TOKENS, walk};
use crate::{
    activations::Activations,
    format::{BLOCK, Format},
    level::Level,
    memory,
    numbers::{largest, nearest},
    pack::{Block, Source, Weights, pack_into},
    product::{Product, Start},
    rows::Rows,
    rowwise,
    simd::{Simd, WIDTH, at_level},
};

/// Ranks that are summed up as integers: more than most adapters have, far fewer than would overflow 32 bits.
const RANKS: usize = 64;
const PAIRS: usize = RANKS / 2;

/// Ranks that are rounded at once: a vector's.
const RANKS_ROUNDED: usize = 8;

/// The largest magnitude of a byte here, so that its negative is one too.
const BYTE_MAX: f32 = 127.0;
const HALF_MAX: f32 = 32767.0;

/// Format of A.
const FORMAT_OF_A: Format = Format::Q8Scale32;

/// Bytes of A with that many ranks.
pub(super) fn bytes_of_a(inputs: usize, ranks: usize) -> usize {
    FORMAT_OF_A.packed_len(inputs, ranks)
}

/// A of so many ranks, in the bytes that [`pack`] wrote.
pub(super) fn weights_of_a(inputs: usize, ranks: usize, bytes: &[u8]) -> Weights<'_> {
    Weights::view(FORMAT_OF_A, inputs, ranks, bytes)
}

/// A of all pairs into `a`, B of each in tiles into `b` and the scales of their ranks into `scales`; `a` and `b` are
/// zero before.
pub(super) fn pack(
    inputs: usize,
    parts: &[Part],
    pairs: &[Pair<'_>],
    a: &mut [u8],
    b: &mut [u8],
    scales: &mut [f32],
) -> Result<(), FactorError> {
    let level = Level::best();
    rowwise::at_level!(
        level,
        pack_body(inputs: usize, parts: &[Part], pairs: &[Pair<'_>], a: &mut [u8], b: &mut [u8], scales: &mut [f32])
            -> Result<(), FactorError>
    )
}

#[inline(always)]
fn pack_body(
    inputs: usize,
    parts: &[Part],
    pairs: &[Pair<'_>],
    a: &mut [u8],
    b: &mut [u8],
    scales: &mut [f32],
) -> Result<(), FactorError> {
    let rows: Vec<&[f32]> = pairs.iter().flat_map(|pair| pair.a.chunks_exact(inputs)).collect();
    // Scales of blocks are kept in 16 bits: each row is brought near 1, and what that takes goes to the scale of its B.
    let powers: Vec<f32> = rows.iter().map(|row| power_of_two(largest(row))).collect();
    pack_into(a, FORMAT_OF_A, inputs, rows.len(), RowsOfA { rows: &rows, powers: &powers });

    for (index, (part, pair)) in parts.iter().zip(pairs).enumerate() {
        // The bits of magnitudes are in the order of the magnitudes.
        let mut most = vec![0u32; part.rank];
        for column in pair.b.chunks_exact(part.rank) {
            for (most, weight) in most.iter_mut().zip(column) {
                *most = (*most).max(weight.abs().to_bits());
            }
        }
        let most: Vec<f32> = most.into_iter().map(f32::from_bits).collect();
        let inverse: Vec<f32> = most.iter().map(|&most| if most == 0.0 { 0.0 } else { BYTE_MAX / most }).collect();
        let tiles = b[part.b_begin..part.b_end()].chunks_exact_mut(part.tile);
        for (tile, columns) in tiles.zip(pair.b.chunks(WIDTH * part.rank)) {
            for (n, column) in columns.chunks_exact(part.rank).enumerate() {
                let eights = column.chunks(RANKS_ROUNDED).zip(inverse.chunks(RANKS_ROUNDED));
                for ((weights, inverse), lines) in eights.zip(tile.chunks_mut(RANKS_ROUNDED * WIDTH)) {
                    put_ranks(weights, inverse, n, lines);
                }
            }
        }
        let ranks = part.rank_begin..part.rank_begin + part.rank;
        for ((scale, most), power) in scales[ranks.clone()].iter_mut().zip(&most).zip(&powers[ranks.clone()]) {
            *scale = most / BYTE_MAX * pair.factor * power;
        }
        if !scales[ranks].iter().all(|scale| scale.is_finite()) {
            return Err(FactorError { pair: index });
        }
    }
    Ok(())
}

/// A, each row divided by its power of two.
struct RowsOfA<'a> {
    rows: &'a [&'a [f32]],
    powers: &'a [f32],
}

impl Source for RowsOfA<'_> {
    #[inline(always)]
    fn block(&mut self, rank: usize, index: usize) -> Block {
        let (row, begin) = (self.rows[rank], index * BLOCK);
        Block::in_8_bits(&row[begin..row.len().min(begin + BLOCK)], 1.0 / self.powers[rank])
    }
}

/// Rounds some ranks of column `n` of a tile, and puts them where they belong in the tile's lines of two ranks.
#[inline(always)]
fn put_ranks(weights: &[f32], inverse: &[f32], n: usize, lines: &mut [u8]) {
    // Of ranks that are not there, zeros.
    let mut padded = [[0.0; RANKS_ROUNDED]; 2];
    let [weights, inverse] = match (weights.first_chunk(), inverse.first_chunk()) {
        (Some(weights), Some(inverse)) => [weights, inverse],
        _ => {
            padded[0][..weights.len()].copy_from_slice(weights);
            padded[1][..inverse.len()].copy_from_slice(inverse);
            [&padded[0], &padded[1]]
        }
    };
    let mut bytes = [0u8; RANKS_ROUNDED];
    for ((byte, weight), inverse) in bytes.iter_mut().zip(weights).zip(inverse) {
        *byte = nearest(weight * inverse) as u8;
    }
    for (pair, line) in bytes.as_chunks::<2>().0.iter().zip(lines.chunks_exact_mut(2 * WIDTH)) {
        line[2 * n..2 * n + 2].copy_from_slice(pair);
    }
}

/// The largest power of two that is not above `x`; 1 for what has none.
fn power_of_two(x: f32) -> f32 {
    let power = f32::from_bits(x.to_bits() & 0x7f80_0000);
    if power.is_normal() { power } else { 1.0 }
}

/// See [`super::hidden`].
pub(super) unsafe fn hidden(level: Level, rows: &AdapterRows<'_>, a: Weights<'_>, x: &Activations, h: Rows<'_>) {
    let product = Product { weights: a, first: 0, x, start: Start::Zero };
    // Successive tokens go through the kernels together.
    for tokens in rows.tokens.chunk_by(|a, b| a + 1 == *b) {
        let (Some(&first), Some(&last)) = (tokens.first(), tokens.last()) else { continue };
        // SAFETY: passed on.
        unsafe { product.rows(level, first as usize..last as usize + 1, h) };
    }
}

/// See [`super::add_columns`], for the columns of one part.
pub(super) unsafe fn add_columns(
    level: Level,
    tokens: &[u32],
    part: &Part,
    columns: Range<usize>,
    (b, scales): (&[u8], &[f32]),
    h: Rows<'_>,
    y: Rows<'_>,
) {
    assert!(part.b_end() <= b.len(), "B is too short for {part:?}");
    let scales = &scales[part.rank_begin..][..part.rank];
    let mut rounded = [[[0i16; 2]; PAIRS]; TOKENS];
    for tokens in tokens.chunks(TOKENS) {
        for (index, scales) in scales.chunks(RANKS).enumerate() {
            let first = index * RANKS;
            let pairs = scales.len().div_ceil(2);
            let mut rows = [Token { pairs: std::ptr::null(), unit: 0.0, y: std::ptr::null_mut() }; TOKENS];
            for ((row, &token), rounded) in rows.iter_mut().zip(tokens).zip(&mut rounded) {
                // SAFETY: the row has the part's ranks (the caller checked), and nobody writes to it.
                let h = unsafe {
                    std::slice::from_raw_parts(h.row(token as usize).add(part.rank_begin + first), scales.len())
                };
                let unit = round(h, scales, rounded);
                // SAFETY: the row has the part's columns (the caller checked).
                let y = unsafe { y.row(token as usize).add(part.column_begin) };
                *row = Token { pairs: rounded.as_ptr(), unit, y };
            }
            let shape = Shape { pairs, tile: part.tile, begin: columns.start, end: columns.end };
            // SAFETY: the part's B lies within `b` (checked), from the first of these ranks on in each tile; every token
            // has so many pairs and the part's columns; the CPU has the level.
            unsafe {
                let b = b.as_ptr().cast::<i8>().add(part.b_begin + first * WIDTH);
                columns_at(level, b, shape, &rows[..tokens.len()]);
            }
        }
    }
}

/// Rounds `h * scales` to 16 bits; returns their unit.
fn round(h: &[f32], scales: &[f32], rounded: &mut [[i16; 2]; PAIRS]) -> f32 {
    let most = h.iter().zip(scales).fold(0u32, |most, (h, s)| most.max((h * s).to_bits() & 0x7fff_ffff));
    let most = f32::from_bits(most);
    rounded[..h.len().div_ceil(2)].fill([0; 2]);
    // Below this the inverse overflows.
    if most < f32::MIN_POSITIVE * 65536.0 {
        return 0.0;
    }
    if !most.is_finite() {
        return f32::NAN;
    }
    let inverse = HALF_MAX / most;
    for ((h, s), rounded) in h.iter().zip(scales).zip(rounded.as_flattened_mut()) {
        *rounded = nearest(h * s * inverse) as i16;
    }
    most / HALF_MAX
}

/// Columns `begin..end` of one part's B.
#[derive(Clone, Copy)]
struct Shape {
    /// Pairs of ranks.
    pairs: usize,
    /// Bytes from one tile to the next.
    tile: usize,
    begin: usize,
    end: usize,
}

/// A token's `q`, its `u` and its outputs.
#[derive(Clone, Copy)]
struct Token {
    pairs: *const [i16; 2],
    unit: f32,
    /// Of the part's first column.
    y: *mut f32,
}

unsafe fn columns_at(level: Level, b: *const i8, shape: Shape, tokens: &[Token]) {
    // SAFETY: passed on; the caller checked the level.
    unsafe { at_level!(level, columns_with, (b: *const i8, shape: Shape, tokens: &[Token])) }
}

#[inline(always)]
unsafe fn columns_with<S: Simd>(b: *const i8, shape: Shape, tokens: &[Token]) {
    // SAFETY: passed on; the columns are the shape's.
    unsafe { walk::<S, _>(&Add { b, shape, tokens }, shape.begin..shape.end, tokens.len()) }
}

/// A part's B, and the tokens to add to.
struct Add<'a> {
    b: *const i8,
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
unsafe fn column(b: *const i8, shape: Shape, n: usize, tokens: &[Token]) {
    for token in tokens {
        // SAFETY: the column is one of B and of y, and the token has all pairs.
        unsafe {
            let mut sum = 0;
            for r in 0..shape.pairs {
                let pair = *token.pairs.add(r);
                let weights = *b.add(n / WIDTH * shape.tile + (r * WIDTH + n % WIDTH) * 2).cast::<[i8; 2]>();
                sum += i32::from(pair[0]) * i32::from(weights[0]) + i32::from(pair[1]) * i32::from(weights[1]);
            }
            let y = token.y.add(n);
            *y = (sum as f32).mul_add(token.unit, *y);
        }
    }
}

/// `TILES` whole tiles for `COUNT` tokens, all sums in registers.
#[inline(always)]
unsafe fn sums<S: Simd, const TILES: usize, const COUNT: usize>(
    b: *const i8,
    shape: Shape,
    n: usize,
    tokens: &[Token],
) {
    // SAFETY: the tiles from column n on are valid, and so are these columns of each y; `tokens` has COUNT entries.
    unsafe {
        let first = b.add(n / WIDTH * shape.tile);
        let mut sums = [[S::no_ints(); TILES]; COUNT];
        for r in 0..shape.pairs {
            let mut weights = [S::pairs(first.add(r * 2 * WIDTH)); TILES];
            for (v, weight) in weights.iter_mut().enumerate() {
                let row = first.add(v * shape.tile + r * 2 * WIDTH);
                memory::fetch_line(row.wrapping_add(TILES * shape.tile).cast());
                *weight = S::pairs(row);
            }
            for (t, sums) in sums.iter_mut().enumerate() {
                let pair = *tokens.get_unchecked(t).pairs.add(r);
                for (sum, &weight) in sums.iter_mut().zip(&weights) {
                    *sum = S::add_pairs(*sum, weight, pair);
                }
            }
        }
        for (t, sums) in sums.into_iter().enumerate() {
            let token = tokens.get_unchecked(t);
            for (v, sum) in sums.into_iter().enumerate() {
                let y = token.y.add(n + v * WIDTH);
                S::load(y).add_product(S::from_ints(sum), S::splat(token.unit)).store(y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_bring_numbers_near_one() {
        for x in [1e-30f32, 0.3, 1.0, 1.99, 7e20] {
            assert!((1.0..2.0).contains(&(x / power_of_two(x))), "{x}");
        }
        assert_eq!([0.0, 1e-44].map(power_of_two), [1.0, 1.0]);
    }

    #[test]
    fn halves_are_nothing_nan_or_within_half_a_unit() {
        let scales: Vec<f32> = (1..=9).map(|i| i as f32 * 0.01).collect();
        let mut rounded = [[7; 2]; PAIRS];
        assert_eq!((round(&[0.0; 9], &scales, &mut rounded), rounded[4]), (0.0, [0; 2]));
        assert!(round(&[1.0, f32::INFINITY], &scales, &mut rounded).is_nan());
        let h: Vec<f32> = (0..9).map(|i| (i * 37 % 11) as f32 - 5.0).collect();
        let unit = round(&h, &scales, &mut rounded);
        for ((h, s), q) in h.iter().zip(&scales).zip(rounded.as_flattened()) {
            assert!((h * s - f32::from(*q) * unit).abs() <= 0.504 * unit);
        }
        assert_eq!(rounded[4][1], 0, "a rank that is not there");
    }
}

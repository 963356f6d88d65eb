//! Instruction-set trait, and the arithmetic of a tile written once on top of it.
//!
//! The numeric contract lives here. For row `r`, column `c` and block `b`, with `d` the exact integer sum over the
//! block of `(q_w - offset) * q_x`, `m` the row's multiplier for the block and `u` its unit:
//!
//! ```text
//! y = 0;  for b in order { y = fma(round(d * m), s_w, y);  with a minimum: y = fma(minimum, round(m * sum(q_x)), y) }
//! y = y * u, or with a residual fma(y, u, residual)
//! ```
//!
//! With a factor for each half of a block, `d` is the sum of both halves, each times its factor: at most 2^24, so still
//! exact. Otherwise scales and minimums are multiplied by their factors first, which is exact as well: 11 bits times 8.
//!
//! Nothing in it depends on how many rows or columns are computed together, or on the width of a vector: a row gets
//! the same bits alone and in company, on every instruction set. An instruction set may multiply by `m` before `d` is
//! made a float, if it has the bits for it, or after.
#![allow(unsafe_code)] // Pointer arithmetic in the inner loops; `Product::check` checks the bounds once per call.

use crate::{
    activations::Meta,
    format::{BLOCK, GROUP_SCALES, Layout, Offset, SCALE_BYTES, TILE_COLUMNS},
};

/// An instruction set: multiplication of a block, and vectors of `LANES` floats or 32-bit integers.
///
/// # Safety
/// Implementations may use instructions that not every CPU has: all functions require that the instruction set is
/// there, and pointers must be valid for what they say they read or write.
pub(crate) unsafe trait Isa {
    const LANES: usize;
    type Floats: Copy;

    /// `m * sum of (q_w - offset) * q_x` over one block, rounded once, for `V` vectors of columns and `R` rows. `quants`
    /// are the block's of this piece of a tile, `x` and `meta` the block's of the first row.
    unsafe fn products<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        meta: *const Meta,
    ) -> [[Self::Floats; V]; R];

    /// Sum of `(q_w - offset) * q_x` over half a block, exact: `half` is 0 or 1, all else as for [`Isa::products`]. For
    /// formats of six bits with the middle as offset.
    unsafe fn half_sums<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        meta: *const Meta,
        half: usize,
    ) -> [[Self::Floats; V]; R];

    unsafe fn splat(x: f32) -> Self::Floats;
    unsafe fn load(p: *const f32) -> Self::Floats;
    /// `LANES` halves, widened.
    unsafe fn load_f16(p: *const u8) -> Self::Floats;
    /// `LANES` bytes, as floats.
    unsafe fn load_u8(p: *const u8) -> Self::Floats;
    /// `LANES` signed bytes, as floats.
    unsafe fn load_i8(p: *const i8) -> Self::Floats;
    unsafe fn store(p: *mut f32, x: Self::Floats);
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
}

/// A pass: one piece of a tile of weights times a few rows of a panel.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) blocks: usize,
    /// First column of the piece in its tile.
    pub(crate) lane: usize,
    /// Scales and offsets of the tile.
    pub(crate) scales: *const u8,
    pub(crate) offsets: *const u8,
    /// Quants of the piece's first block.
    pub(crate) quants: *const u8,
    /// Quants and the rest of the first row's first block.
    pub(crate) x: *const i8,
    pub(crate) meta: *const Meta,
    /// Unit of the first row.
    pub(crate) units: *const f32,
    /// Rows of the panel: the stride between a row's blocks.
    pub(crate) panel_rows: usize,
    /// Output of the first row and the piece's first column; floats from row to row.
    pub(crate) y: *mut f32,
    pub(crate) y_stride: usize,
    /// Residual, laid out as `y` and possibly `y` itself; null for none.
    pub(crate) residual: *const f32,
    /// Columns of the piece that exist.
    pub(crate) columns: usize,
    /// Prefetch address for the next pass, in equal steps for each block.
    pub(crate) ahead: *const u8,
    pub(crate) ahead_step: usize,
}

/// Computes `R` rows of the pass for a piece of `V` vectors of columns.
///
/// # Safety
/// The CPU has `I`; all pointers of the pass are valid for its shape.
#[inline(always)]
pub(crate) unsafe fn pass<I: Isa, L: Layout, const V: usize, const R: usize>(pass: &Pass) {
    // SAFETY: passed on; each step moves to the next block, of which there are `blocks`.
    unsafe {
        let mut sums = [[I::splat(0.0); V]; R];
        let (mut scales, mut offsets, mut quants) = (pass.scales, pass.offsets, pass.quants);
        let (mut x, mut meta, mut ahead) = (pass.x, pass.meta, pass.ahead);
        for block in 0..pass.blocks {
            let mut line = 0;
            while line < pass.ahead_step {
                crate::memory::fetch_line(ahead.wrapping_add(line));
                line += crate::memory::LINE;
            }
            ahead = ahead.wrapping_add(pass.ahead_step);
            let index = block % L::GROUP;
            let products = if L::FACTORS == 2 {
                in_halves::<I, L, V, R>(quants, x, meta, factors(scales, 2 * index, pass.lane))
            } else {
                I::products::<L, V, R>(quants, x, meta)
            };
            for v in 0..V {
                let lane = pass.lane + v * I::LANES;
                let scale = scales_of::<I>(scales, lane, (L::FACTORS == 1).then_some(index));
                for r in 0..R {
                    sums[r][v] = I::fma(products[r][v], scale, sums[r][v]);
                }
                if matches!(L::OFFSET, Offset::Minimum) {
                    let minimum = scales_of::<I>(offsets, lane, (L::FACTORS == 1).then_some(index));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        sums[v] = I::fma(minimum, I::splat((*meta.add(r)).sum), sums[v]);
                    }
                }
            }
            // After the last block these point nowhere, which is no more than that with a wrapping addition.
            if index + 1 == L::GROUP {
                scales = scales.wrapping_add(L::SCALES);
                offsets = offsets.wrapping_add(L::OFFSETS);
            }
            quants = quants.wrapping_add(L::QUANTS);
            x = x.wrapping_add(pass.panel_rows * BLOCK);
            meta = meta.wrapping_add(pass.panel_rows);
        }
        for (r, sums) in sums.iter().enumerate() {
            finish::<I, V>(pass, r, sums);
        }
    }
}

/// Factors `index` of the columns from `lane` on, of a group of scales.
#[inline(always)]
fn factors(group: *const u8, index: usize, lane: usize) -> *const u8 {
    group.wrapping_add(GROUP_SCALES + index * TILE_COLUMNS + lane)
}

/// Scales (or minimums) of the columns from `lane` on, times the factors of block `factor` of the group.
#[inline(always)]
unsafe fn scales_of<I: Isa>(group: *const u8, lane: usize, factor: Option<usize>) -> I::Floats {
    // SAFETY: the scales of a whole tile, and the factors of a block of the group, are valid.
    unsafe {
        let scale = I::load_f16(group.add(SCALE_BYTES * lane));
        match factor {
            Some(index) => I::multiply(scale, I::load_u8(factors(group, index, lane))),
            None => scale,
        }
    }
}

/// `m * d` of a block with a factor for each half.
#[inline(always)]
unsafe fn in_halves<I: Isa, L: Layout, const V: usize, const R: usize>(
    quants: *const u8,
    x: *const i8,
    meta: *const Meta,
    factors: *const u8,
) -> [[I::Floats; V]; R] {
    // SAFETY: passed on; the factors of both halves of all columns of the tile are valid.
    unsafe {
        let mut products = I::half_sums::<L, V, R>(quants, x, meta, 0);
        // Loops, not closures: those would not be compiled for the instruction set.
        for v in 0..V {
            let factor = I::load_i8(factors.add(v * I::LANES).cast());
            for products in &mut products {
                products[v] = I::multiply(products[v], factor);
            }
        }
        let second = I::half_sums::<L, V, R>(quants, x, meta, 1);
        for v in 0..V {
            let factor = I::load_i8(factors.add(TILE_COLUMNS + v * I::LANES).cast());
            for (r, products) in products.iter_mut().enumerate() {
                let both = I::fma(second[r][v], factor, products[v]);
                products[v] = I::multiply(both, I::splat((*meta.add(r)).multiplier));
            }
        }
        products
    }
}

/// Multiplies by the row's unit, adds the residual and stores the columns that exist.
#[inline(always)]
unsafe fn finish<I: Isa, const V: usize>(pass: &Pass, r: usize, sums: &[I::Floats; V]) {
    // SAFETY: `columns` floats of row r at `y` are the pass's own, and those of the residual valid if there is one.
    unsafe {
        let (row, unit) = (r * pass.y_stride, *pass.units.add(r));
        let y = pass.y.add(row);
        if pass.columns >= V * I::LANES {
            for (v, &sum) in sums.iter().enumerate() {
                let (at, unit) = (v * I::LANES, I::splat(unit));
                let sum = if pass.residual.is_null() {
                    I::multiply(sum, unit)
                } else {
                    I::fma(sum, unit, I::load(pass.residual.add(row + at)))
                };
                I::store(y.add(at), sum);
            }
            return;
        }
        let mut whole = [0.0f32; TILE_COLUMNS];
        for (v, &sum) in sums.iter().enumerate() {
            I::store(whole.as_mut_ptr().add(v * I::LANES), sum);
        }
        for (column, &sum) in whole.iter().enumerate().take(pass.columns) {
            // Zero is not added where there is no residual: it would turn -0 into 0.
            *y.add(column) =
                if pass.residual.is_null() { sum * unit } else { sum.mul_add(unit, *pass.residual.add(row + column)) };
        }
    }
}

//! Reference implementation in plain Rust: every other instruction set must match it bit for bit.
#![allow(unsafe_code)] // Reads through the pointers of `Isa`.

use std::ops::Range;

use half::f16;

use crate::{
    activations::Meta,
    format::{BLOCK, Layout, Offset, TILE_COLUMNS},
    isa::Isa,
};

/// Sixteen lanes of plain Rust.
pub(crate) struct Portable;

// SAFETY: needs no instruction set; pointers by the caller's promise.
unsafe impl Isa for Portable {
    const LANES: usize = TILE_COLUMNS;
    type Floats = [f32; TILE_COLUMNS];

    #[inline(always)]
    unsafe fn products<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        meta: *const Meta,
    ) -> [[Self::Floats; V]; R] {
        // SAFETY: `QUANTS` bytes of quants, and R blocks of x and of meta.
        unsafe {
            let sums = sums::<L, R>(quants, x, 0..BLOCK / 4);
            std::array::from_fn(|r| [sums[r].map(|sum| sum as f32 * (*meta.add(r)).multiplier); V])
        }
    }

    #[inline(always)]
    unsafe fn half_sums<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        _meta: *const Meta,
        half: usize,
    ) -> [[Self::Floats; V]; R] {
        // SAFETY: as above.
        let sums = unsafe { sums::<L, R>(quants, x, half * BLOCK / 8..(half + 1) * BLOCK / 8) };
        sums.map(|sums| [sums.map(|sum| sum as f32); V])
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::Floats {
        [x; TILE_COLUMNS]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::Floats {
        // SAFETY: sixteen floats.
        unsafe { p.cast::<Self::Floats>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Self::Floats {
        // SAFETY: sixteen halves.
        unsafe { p.cast::<[u16; TILE_COLUMNS]>().read_unaligned().map(|bits| f16::from_bits(bits).to_f32_const()) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::Floats {
        // SAFETY: sixteen bytes.
        unsafe { p.cast::<[u8; TILE_COLUMNS]>().read_unaligned().map(f32::from) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::Floats {
        // SAFETY: sixteen bytes.
        unsafe { p.cast::<[i8; TILE_COLUMNS]>().read_unaligned().map(f32::from) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::Floats) {
        // SAFETY: sixteen floats.
        unsafe { p.cast::<Self::Floats>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
}

/// Sums over the inputs of some fours.
#[inline(always)]
unsafe fn sums<L: Layout, const R: usize>(
    quants: *const u8,
    x: *const i8,
    fours: Range<usize>,
) -> [[i32; TILE_COLUMNS]; R] {
    let mut sums = [[0; TILE_COLUMNS]; R];
    for group in fours {
        // SAFETY: a four of the block's.
        let four = unsafe { four::<L>(quants, group) };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: R blocks of x are valid.
            let x = unsafe { x.add(r * BLOCK + 4 * group).cast::<[i8; 4]>().read_unaligned() }.map(i32::from);
            for (sum, w) in sums.iter_mut().zip(&four) {
                *sum += w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3];
            }
        }
    }
    sums
}

/// Four successive weights of each column, less their offset.
#[inline(always)]
unsafe fn four<L: Layout>(quants: *const u8, group: usize) -> [[i32; 4]; TILE_COLUMNS] {
    // SAFETY: the group is one of the block's.
    unsafe {
        let bytes = |line: usize| quants.add(64 * line).cast::<[[u8; 4]; TILE_COLUMNS]>().read_unaligned();
        let mut four = match (L::BITS, group % 2) {
            (8, _) => bytes(group),
            (_, 0) => bytes(group / 2).map(|q| q.map(|q| q & 15)),
            _ => bytes(group / 2).map(|q| q.map(|q| q >> 4)),
        };
        if L::BITS == 6 {
            let upper = bytes(BLOCK / 8 + group / 4).map(|q| q.map(|q| (q >> (2 * (group % 4)) & 3) << 4));
            four = std::array::from_fn(|column| std::array::from_fn(|i| four[column][i] | upper[column][i]));
        }
        let offset = match L::OFFSET {
            Offset::Middle => 1 << (L::BITS - 1),
            Offset::Minimum => 0,
        };
        four.map(|column| column.map(|q| i32::from(q) - offset))
    }
}

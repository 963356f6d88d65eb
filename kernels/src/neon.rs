//! NEON with I8MM: `smmla` multiplies two rows by two columns of eight bytes each, `sdot` serves a row that is alone.
//!
//! A tile holds eight successive inputs of a column in the two halves of 32-bit lanes; zipped, they are the operand of
//! `smmla`. Both instructions are written as assembly, since the compiler's own names for them are not stable yet.
#![allow(unsafe_code)] // Intrinsics; the callers of `Isa` guarantee the instruction set and the bounds.

use std::{
    arch::{aarch64::*, asm},
    ops::Range,
};

use crate::{
    activations::Meta,
    format::{BLOCK, Layout, Offset},
    isa::Isa,
};

/// Four lanes of NEON with dot products and I8MM.
pub(crate) struct NeonI8mm;

/// `sum[i][j] += a[i] . b[j]` for rows `i` and `j` of two, eight bytes each.
#[inline(always)]
pub(crate) unsafe fn smmla(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; I8MM by the caller's promise.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum[lane] += a[lane] . b[lane]`, four bytes each.
#[inline(always)]
unsafe fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; dot products by the caller's promise.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Four halves at `p`, widened.
#[inline(always)]
pub(crate) unsafe fn widen(p: *const u8) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: eight readable bytes by the caller's promise; an instruction of every AArch64.
    unsafe {
        let halves = vld1_u8(p);
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// Writes the nearest four halves to `p`.
#[inline(always)]
pub(crate) unsafe fn store_narrowed(wide: float32x4_t, p: *mut u8) {
    let halves: uint8x8_t;
    // SAFETY: eight writable bytes by the caller's promise; an instruction of every AArch64.
    unsafe {
        asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) halves, in(vreg) wide,
            options(pure, nomem, nostack, preserves_flags));
        vst1_u8(p, halves);
    }
}

// SAFETY: only NEON, dot product and I8MM instructions, which the caller vouches for.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Isa for NeonI8mm {
    const LANES: usize = 4;
    type Floats = float32x4_t;

    #[inline(always)]
    unsafe fn products<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        meta: *const Meta,
    ) -> [[float32x4_t; V]; R] {
        unsafe {
            let sums = sums::<L, V, R>(quants, x, 0..BLOCK / 8);
            let mut products = [[vdupq_n_f32(0.0); V]; R];
            for (r, (products, sums)) in products.iter_mut().zip(sums).enumerate() {
                let multiplier = (*meta.add(r)).multiplier;
                for (product, sum) in products.iter_mut().zip(sums) {
                    *product = vmulq_n_f32(vcvtq_f32_s32(sum), multiplier);
                }
            }
            products
        }
    }

    #[inline(always)]
    unsafe fn half_sums<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        _meta: *const Meta,
        half: usize,
    ) -> [[float32x4_t; V]; R] {
        unsafe {
            let sums = sums::<L, V, R>(quants, x, half * BLOCK / 16..(half + 1) * BLOCK / 16);
            sums.map(|sums| sums.map(|sum| vcvtq_f32_s32(sum)))
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> float32x4_t {
        unsafe { widen(p) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> float32x4_t {
        unsafe {
            let four = vreinterpret_u8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
            vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four))))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> float32x4_t {
        unsafe {
            let four = vreinterpret_s8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(four))))
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: float32x4_t) {
        unsafe { vst1q_f32(p, x) }
    }
    #[inline(always)]
    unsafe fn multiply(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
}

/// Offset to subtract from the stored bytes.
#[inline(always)]
unsafe fn offset<L: Layout>() -> int8x16_t {
    // SAFETY: NEON by the caller's promise.
    unsafe {
        match L::OFFSET {
            Offset::Middle if L::BITS == 8 => vdupq_n_s8(-128),
            Offset::Middle if L::BITS == 6 => vdupq_n_s8(32),
            Offset::Middle => vdupq_n_s8(8),
            Offset::Minimum => vdupq_n_s8(0),
        }
    }
}

/// Two groups of four successive inputs of four columns, less their offsets. Bytes less -128 are bytes plus 128.
#[inline(always)]
unsafe fn groups<L: Layout>(quants: *const u8, octet: usize, v: usize, offset: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: the octet is one of the block's.
    unsafe {
        let line = |line: usize| vld1q_u8(quants.add(64 * line + 16 * v));
        let mut groups = if L::BITS == 8 {
            [line(2 * octet), line(2 * octet + 1)]
        } else {
            let both = line(octet);
            [vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both)]
        };
        if L::BITS == 6 {
            let upper = line(BLOCK / 8 + octet / 2);
            let uppers = if octet.is_multiple_of(2) {
                [vshlq_n_u8::<4>(upper), vshlq_n_u8::<2>(upper)]
            } else {
                [upper, vshrq_n_u8::<2>(upper)]
            };
            groups = [0, 1].map(|i| vorrq_u8(groups[i], vandq_u8(uppers[i], vdupq_n_u8(0x30))));
        }
        groups.map(|group| vsubq_s8(vreinterpretq_s8_u8(group), offset))
    }
}

/// Sums over the inputs of some octets.
#[inline(always)]
unsafe fn sums<L: Layout, const V: usize, const R: usize>(
    quants: *const u8,
    x: *const i8,
    octets: Range<usize>,
) -> [[int32x4_t; V]; R] {
    // SAFETY: passed on.
    unsafe { if R == 1 { alone::<L, V, R>(quants, x, octets) } else { in_pairs::<L, V, R>(quants, x, octets) } }
}

#[inline(always)]
unsafe fn alone<L: Layout, const V: usize, const R: usize>(
    quants: *const u8,
    x: *const i8,
    octets: Range<usize>,
) -> [[int32x4_t; V]; R] {
    // SAFETY: V vectors of a block's quants and a block of x are valid.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); V]; R];
        let offset = offset::<L>();
        for (v, sum) in sums[0].iter_mut().enumerate() {
            for octet in octets.clone() {
                for (i, group) in groups::<L>(quants, octet, v, offset).into_iter().enumerate() {
                    let four = vdupq_n_s32(x.add(8 * octet + 4 * i).cast::<i32>().read_unaligned());
                    *sum = sdot(*sum, group, vreinterpretq_s8_s32(four));
                }
            }
        }
        sums
    }
}

#[inline(always)]
unsafe fn in_pairs<L: Layout, const V: usize, const R: usize>(
    quants: *const u8,
    x: *const i8,
    octets: Range<usize>,
) -> [[int32x4_t; V]; R] {
    // SAFETY: V vectors of a block's quants and R blocks of x are valid; R is even.
    unsafe {
        let nothing = vdupq_n_s32(0);
        let mut sums = [[nothing; V]; R];
        let offset = offset::<L>();
        for octet in octets {
            for v in 0..V {
                let [early, late] = groups::<L>(quants, octet, v, offset).map(|g| vreinterpretq_s32_s8(g));
                // Columns 0 and 1, then 2 and 3, all eight inputs of each.
                let columns = [vzip1q_s32(early, late), vzip2q_s32(early, late)].map(|c| vreinterpretq_s8_s32(c));
                for pair in (0..R).step_by(2) {
                    let row = |r: usize| vld1_s8(x.add(r * BLOCK + 8 * octet));
                    let rows = vcombine_s8(row(pair), row(pair + 1));
                    sums[pair][v] = smmla(sums[pair][v], rows, columns[0]);
                    sums[pair + 1][v] = smmla(sums[pair + 1][v], rows, columns[1]);
                }
            }
        }
        for pair in sums.chunks_exact_mut(2) {
            let [first, second] = pair else { continue };
            for (first, second) in first.iter_mut().zip(second) {
                // Each holds two columns of two rows; rows are wanted.
                let (left, right) = (vreinterpretq_s64_s32(*first), vreinterpretq_s64_s32(*second));
                *first = vreinterpretq_s32_s64(vzip1q_s64(left, right));
                *second = vreinterpretq_s32_s64(vzip2q_s64(left, right));
            }
        }
        sums
    }
}

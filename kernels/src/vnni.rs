//! AVX-VNNI: `dpbusd` on 256 bits adds four products of unsigned weights and activations to a 32-bit sum.
#![allow(unsafe_code)] // Intrinsics; the callers of `Isa` guarantee the instruction set and the bounds.

use std::{arch::x86_64::*, ops::Range};

use crate::{
    activations::Meta,
    avx2::{every_lane, floats_of_256_bits, fours, multiplied},
    format::{BLOCK, Layout, Offset},
    isa::Isa,
};

/// Eight lanes of AVX2, FMA, F16C and AVX-VNNI.
pub(crate) struct AvxVnni;

// SAFETY: only AVX2, FMA, F16C and AVX-VNNI instructions, which the caller vouches for.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Isa for AvxVnni {
    floats_of_256_bits!();

    #[inline(always)]
    unsafe fn products<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        meta: *const Meta,
    ) -> [[__m256; V]; R] {
        unsafe {
            let sums = sums::<L, V, R>(start::<L, V, R>(meta), quants, x, 0..BLOCK / 8);
            multiplied(sums, meta)
        }
    }

    #[inline(always)]
    unsafe fn half_sums<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        meta: *const Meta,
        half: usize,
    ) -> [[__m256; V]; R] {
        unsafe {
            let mut start = [[_mm256_setzero_si256(); V]; R];
            for (r, start) in start.iter_mut().enumerate() {
                let minus = i32::from((*meta.add(r)).minus_halves[half]);
                *start = [_mm256_set1_epi32(minus << (L::BITS - 1)); V];
            }
            let sums = sums::<L, V, R>(start, quants, x, half * BLOCK / 16..(half + 1) * BLOCK / 16);
            let mut floats = [[_mm256_setzero_ps(); V]; R];
            for (floats, sums) in floats.iter_mut().zip(sums) {
                for (float, sum) in floats.iter_mut().zip(sums) {
                    *float = _mm256_cvtepi32_ps(sum);
                }
            }
            floats
        }
    }
}

/// Sums over the inputs of some octets, added to `sums`.
#[inline(always)]
unsafe fn sums<L: Layout, const V: usize, const R: usize>(
    mut sums: [[__m256i; V]; R],
    quants: *const u8,
    x: *const i8,
    octets: Range<usize>,
) -> [[__m256i; V]; R] {
    for octet in octets {
        // SAFETY: the octets are the block's; V vectors of its quants and R blocks of x are valid.
        unsafe {
            for (late, four) in fours::<L, V>(quants, octet).into_iter().enumerate() {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = every_lane(x.add(r * BLOCK + 8 * octet + 4 * late));
                    for v in 0..V {
                        sums[v] = _mm256_dpbusd_avx_epi32(sums[v], four[v], x);
                    }
                }
            }
        }
    }
    sums
}

/// Initial value of the sums: minus the offset's part.
#[inline(always)]
unsafe fn start<L: Layout, const V: usize, const R: usize>(meta: *const Meta) -> [[__m256i; V]; R] {
    // SAFETY: R of meta are valid.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); V]; R];
        if matches!(L::OFFSET, Offset::Middle) {
            let offset = _mm256_set1_epi16(1 << (L::BITS - 1));
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm256_madd_epi16(offset, every_lane(&raw const (*meta.add(r)).minus)); V];
            }
        }
        sums
    }
}

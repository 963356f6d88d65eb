//! AVX-VNNI: `dpbusd` on 256 bits adds four products of unsigned weights and activations to a 32-bit sum.
#![allow(unsafe_code)] // Intrinsics; the callers of `Isa` guarantee the instruction set and the bounds.

use std::arch::x86_64::*;

use crate::{
    activations::Meta,
    avx2::{every_lane, floats_of_256_bits, multiplied},
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
            let mut sums = start::<L, V, R>(meta);
            let low = _mm256_set1_epi8(15);
            for line in 0..L::QUANTS / 64 {
                let mut first = [low; V];
                let mut second = [low; V];
                for v in 0..V {
                    first[v] = _mm256_loadu_si256(quants.add(64 * line + 32 * v).cast());
                    if L::BITS == 4 {
                        second[v] = _mm256_and_si256(_mm256_srli_epi16::<4>(first[v]), low);
                        first[v] = _mm256_and_si256(first[v], low);
                    }
                }
                let inputs = 32 / L::BITS * line;
                for (r, sums) in sums.iter_mut().enumerate() {
                    let early = every_lane(x.add(r * BLOCK + inputs));
                    for v in 0..V {
                        sums[v] = _mm256_dpbusd_avx_epi32(sums[v], first[v], early);
                    }
                }
                if L::BITS == 4 {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let late = every_lane(x.add(r * BLOCK + inputs + 4));
                        for v in 0..V {
                            sums[v] = _mm256_dpbusd_avx_epi32(sums[v], second[v], late);
                        }
                    }
                }
            }
            multiplied(sums, meta)
        }
    }
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

//! AVX-512 VNNI: as AVX-VNNI, but sixteen columns at once, and activations broadcast by the instruction itself.
#![allow(unsafe_code)] // Intrinsics; the callers of `Isa` guarantee the instruction set and the bounds.

use std::arch::x86_64::*;

use crate::{
    activations::Meta,
    format::{BLOCK, Layout, Offset},
    isa::Isa,
};

/// Sixteen lanes of AVX-512 F, BW, VL and VNNI.
pub(crate) struct Avx512Vnni;

// SAFETY: only AVX-512 F, BW, VL and VNNI instructions, which the caller vouches for.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Isa for Avx512Vnni {
    const LANES: usize = 16;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn products<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        meta: *const Meta,
    ) -> [[__m512; V]; R] {
        unsafe {
            let mut sums = start::<L, V, R>(meta);
            let low = _mm512_set1_epi8(15);
            for line in 0..L::QUANTS / 64 {
                let stored = _mm512_loadu_si512(quants.add(64 * line).cast());
                let inputs = 32 / L::BITS * line;
                let first = if L::BITS == 4 { _mm512_and_si512(stored, low) } else { stored };
                for (r, sums) in sums.iter_mut().enumerate() {
                    sums[0] = _mm512_dpbusd_epi32(sums[0], first, every_lane(x.add(r * BLOCK + inputs)));
                }
                if L::BITS == 4 {
                    let second = _mm512_and_si512(_mm512_srli_epi16::<4>(stored), low);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        sums[0] = _mm512_dpbusd_epi32(sums[0], second, every_lane(x.add(r * BLOCK + inputs + 4)));
                    }
                }
            }
            let mut products = [[_mm512_setzero_ps(); V]; R];
            for (r, (products, sums)) in products.iter_mut().zip(sums).enumerate() {
                let multiplier = _mm512_set1_ps((*meta.add(r)).multiplier);
                products[0] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[0]), multiplier);
            }
            products
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> __m512 {
        #[cfg(miri)]
        return unsafe { Self::load(crate::simd::widened::<16>(p).as_ptr()) };
        #[cfg(not(miri))]
        unsafe {
            _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
}

/// Four bytes, or two halves of a pair, in every lane.
#[inline(always)]
unsafe fn every_lane<T>(p: *const T) -> __m512i {
    // SAFETY: four readable bytes by the caller's promise.
    unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
}

/// Initial value of the sums: minus the offset's part.
#[inline(always)]
unsafe fn start<L: Layout, const V: usize, const R: usize>(meta: *const Meta) -> [[__m512i; V]; R] {
    // SAFETY: R of meta are valid.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); V]; R];
        if matches!(L::OFFSET, Offset::Middle) {
            let offset = _mm512_set1_epi16(1 << (L::BITS - 1));
            for (r, sums) in sums.iter_mut().enumerate() {
                sums[0] = _mm512_madd_epi16(offset, every_lane(&raw const (*meta.add(r)).minus));
            }
        }
        sums
    }
}

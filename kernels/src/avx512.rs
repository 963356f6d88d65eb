//! AVX-512 VNNI: as AVX-VNNI, but sixteen columns at once, and activations broadcast by the instruction itself.
#![allow(unsafe_code)] // Intrinsics; the callers of `Isa` guarantee the instruction set and the bounds.

use std::{arch::x86_64::*, ops::Range};

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
            let sums = sums::<L, V, R>(start::<L, V, R>(meta), quants, x, 0..BLOCK / 8);
            let mut products = [[_mm512_setzero_ps(); V]; R];
            for (r, (products, sums)) in products.iter_mut().zip(sums).enumerate() {
                let multiplier = _mm512_set1_ps((*meta.add(r)).multiplier);
                products[0] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[0]), multiplier);
            }
            products
        }
    }

    #[inline(always)]
    unsafe fn half_sums<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        meta: *const Meta,
        half: usize,
    ) -> [[__m512; V]; R] {
        unsafe {
            let mut start = [[_mm512_setzero_si512(); V]; R];
            for (r, start) in start.iter_mut().enumerate() {
                let minus = i32::from((*meta.add(r)).minus_halves[half]);
                start[0] = _mm512_set1_epi32(minus << (L::BITS - 1));
            }
            let sums = sums::<L, V, R>(start, quants, x, half * BLOCK / 16..(half + 1) * BLOCK / 16);
            let mut floats = [[_mm512_setzero_ps(); V]; R];
            for (floats, sums) in floats.iter_mut().zip(sums) {
                floats[0] = _mm512_cvtepi32_ps(sums[0]);
            }
            floats
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
    unsafe fn load_u8(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
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

/// Sums over the inputs of some octets, added to `sums`.
#[inline(always)]
unsafe fn sums<L: Layout, const V: usize, const R: usize>(
    mut sums: [[__m512i; V]; R],
    quants: *const u8,
    x: *const i8,
    octets: Range<usize>,
) -> [[__m512i; V]; R] {
    for octet in octets {
        // SAFETY: the octets are the block's, and R blocks of x are valid.
        unsafe {
            for (late, four) in fours::<L>(quants, octet).into_iter().enumerate() {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = every_lane(x.add(r * BLOCK + 8 * octet + 4 * late));
                    sums[0] = _mm512_dpbusd_epi32(sums[0], four, x);
                }
            }
        }
    }
    sums
}

/// The two fours of an octet, a byte for each quant.
#[inline(always)]
unsafe fn fours<L: Layout>(quants: *const u8, octet: usize) -> [__m512i; 2] {
    // SAFETY: the octet is one of the block's.
    unsafe {
        if L::BITS == 8 {
            return [line(quants, 2 * octet), line(quants, 2 * octet + 1)];
        }
        let (low, both) = (_mm512_set1_epi8(15), line(quants, octet));
        let fours = [_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low)];
        if L::BITS == 4 {
            return fours;
        }
        // Bits that a shift carries into a neighbouring byte are masked.
        let upper = line(quants, BLOCK / 8 + octet / 2);
        let uppers = if octet.is_multiple_of(2) {
            [_mm512_slli_epi16::<4>(upper), _mm512_slli_epi16::<2>(upper)]
        } else {
            [upper, _mm512_srli_epi16::<2>(upper)]
        };
        let mask = _mm512_set1_epi8(0x30);
        [
            _mm512_or_si512(fours[0], _mm512_and_si512(uppers[0], mask)),
            _mm512_or_si512(fours[1], _mm512_and_si512(uppers[1], mask)),
        ]
    }
}

/// Line `index` of a block's quants.
#[inline(always)]
unsafe fn line(quants: *const u8, index: usize) -> __m512i {
    // SAFETY: the line is one of the block's.
    unsafe { _mm512_loadu_si512(quants.add(64 * index).cast()) }
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

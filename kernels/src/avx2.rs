//! AVX2: products of bytes by `maddubs`, summed in 16 bits.
//!
//! `maddubs` takes unsigned weights and signed activations and adds two products: at most `2 * 15 * 127` for 4 bits,
//! far from saturation. Those sums are kept in 16 bits for a whole block, 16 products a lane: at most `16 * 15 * 127`, or
//! 30,480. Starting from minus eight times the sum of the activations (`Meta::minus8`) a lane ends with its sum over
//! `q - 8`; what overflows on the way comes back, as sums of 16 bits are exact modulo 2^16. So the offset of 8 costs
//! nothing. At the end of a block `maddwd` widens, multiplies by the row's multiplier and adds the two lanes of a column
//! in one instruction: at most `2 * 30480 * 32767`, which just fits 32 bits.
#![allow(unsafe_code)] // Intrinsics; the callers of `Isa` guarantee the instruction set and the bounds.

use std::{arch::x86_64::*, ops::Range};

use crate::{
    activations::Meta,
    format::{BLOCK, Layout, Offset},
    isa::Isa,
};

/// Eight lanes of AVX2, FMA and F16C.
pub(crate) struct Avx2;

/// The functions of `Isa` on floats in 256-bit registers.
macro_rules! floats_of_256_bits {
    () => {
        const LANES: usize = 8;
        type Floats = __m256;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u8) -> __m256 {
            #[cfg(miri)]
            return unsafe { Self::load(crate::simd::widened::<8>(p).as_ptr()) };
            #[cfg(not(miri))]
            unsafe {
                _mm256_cvtph_ps(_mm_loadu_si128(p.cast()))
            }
        }
        #[inline(always)]
        unsafe fn load_u8(p: *const u8) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, x: __m256) {
            unsafe { _mm256_storeu_ps(p, x) }
        }
        #[inline(always)]
        unsafe fn multiply(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
    };
}
pub(crate) use floats_of_256_bits;

// SAFETY: only AVX2, FMA and F16C instructions, which the caller vouches for.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Isa for Avx2 {
    floats_of_256_bits!();

    #[inline(always)]
    unsafe fn products<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        meta: *const Meta,
    ) -> [[__m256; V]; R] {
        unsafe {
            match L::BITS {
                8 => multiplied(dots8::<V, R>(quants, x), meta),
                6 => multiplied(dots6::<L, V, R>(quants, x, 0..BLOCK / 8), meta),
                _ => products4::<L, V, R>(quants, x, meta),
            }
        }
    }

    #[inline(always)]
    unsafe fn half_sums<L: Layout, const V: usize, const R: usize>(
        quants: *const u8,
        x: *const i8,
        _meta: *const Meta,
        half: usize,
    ) -> [[__m256; V]; R] {
        unsafe {
            let sums = dots6::<L, V, R>(quants, x, half * BLOCK / 16..(half + 1) * BLOCK / 16);
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

/// Every sum as a float, times its row's multiplier.
#[inline(always)]
pub(crate) unsafe fn multiplied<const V: usize, const R: usize>(
    sums: [[__m256i; V]; R],
    meta: *const Meta,
) -> [[__m256; V]; R] {
    // SAFETY: R of meta are valid; AVX2.
    unsafe {
        let mut products = [[_mm256_setzero_ps(); V]; R];
        for (r, (products, sums)) in products.iter_mut().zip(sums).enumerate() {
            let multiplier = _mm256_set1_ps((*meta.add(r)).multiplier);
            for (product, sum) in products.iter_mut().zip(sums) {
                *product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), multiplier);
            }
        }
        products
    }
}

/// Four bytes, or two halves of a pair, in every lane.
#[inline(always)]
pub(crate) unsafe fn every_lane<T>(p: *const T) -> __m256i {
    // SAFETY: four readable bytes by the caller's promise.
    unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
}

/// The same, but the compiler does not know.
#[inline]
#[target_feature(enable = "avx2")]
fn kept(x: __m256i) -> __m256i {
    #[cfg(not(miri))]
    let mut x = x;
    #[cfg(not(miri))]
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!("/* {0} */", inout(ymm_reg) x, options(pure, nomem, nostack, preserves_flags))
    };
    x
}

#[inline(always)]
unsafe fn products4<L: Layout, const V: usize, const R: usize>(
    quants: *const u8,
    x: *const i8,
    meta: *const Meta,
) -> [[__m256; V]; R] {
    // SAFETY: V vectors of a block's quants, R blocks of x and R of meta are valid.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let mut sums = [[_mm256_setzero_si256(); V]; R];
        if matches!(L::OFFSET, Offset::Middle) {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = [every_lane(&raw const (*meta.add(r)).minus8); V];
            }
        }
        for octet in 0..BLOCK / 8 {
            let mut early = [low; V];
            let mut late = [low; V];
            for v in 0..V {
                let both = _mm256_loadu_si256(quants.add(64 * octet + 32 * v).cast());
                early[v] = _mm256_and_si256(both, low);
                late[v] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low);
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = every_lane(x.add(r * BLOCK + 8 * octet));
                for v in 0..V {
                    sums[v] = _mm256_add_epi16(sums[v], _mm256_maddubs_epi16(early[v], x));
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = every_lane(x.add(r * BLOCK + 8 * octet + 4));
                for v in 0..V {
                    sums[v] = _mm256_add_epi16(sums[v], _mm256_maddubs_epi16(late[v], x));
                }
            }
            // Two vectors of unpacked weights for a whole block would not fit the registers; the compiler, which is
            // free to add in any order, would try, and spill.
            if V == 2 {
                for sums in &mut sums {
                    for sum in sums {
                        *sum = kept(*sum);
                    }
                }
            }
        }
        let mut products = [[_mm256_setzero_ps(); V]; R];
        for (r, (products, sums)) in products.iter_mut().zip(sums).enumerate() {
            let multiplier = every_lane(&raw const (*meta.add(r)).multipliers);
            for (product, sum) in products.iter_mut().zip(sums) {
                *product = _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, multiplier));
            }
        }
        products
    }
}

/// The two fours of an octet, for V vectors of columns: a byte for each quant.
#[inline(always)]
pub(crate) unsafe fn fours<L: Layout, const V: usize>(quants: *const u8, octet: usize) -> [[__m256i; V]; 2] {
    // SAFETY: V vectors of a block's quants are valid, and the octet is one of the block's.
    unsafe {
        let (low, mask) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
        let mut fours = [[low; V]; 2];
        for v in 0..V {
            if L::BITS == 8 {
                (fours[0][v], fours[1][v]) = (line(quants, 2 * octet, v), line(quants, 2 * octet + 1, v));
                continue;
            }
            let both = line(quants, octet, v);
            fours[0][v] = _mm256_and_si256(both, low);
            fours[1][v] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low);
            if L::BITS == 6 {
                // Bits that a shift carries into a neighbouring byte are masked.
                let upper = line(quants, BLOCK / 8 + octet / 2, v);
                let uppers = if octet.is_multiple_of(2) {
                    [_mm256_slli_epi16::<4>(upper), _mm256_slli_epi16::<2>(upper)]
                } else {
                    [upper, _mm256_srli_epi16::<2>(upper)]
                };
                for (fours, upper) in fours.iter_mut().zip(uppers) {
                    fours[v] = _mm256_or_si256(fours[v], _mm256_and_si256(upper, mask));
                }
            }
        }
        fours
    }
}

/// Half `v` of line `index` of a block's quants.
#[inline(always)]
unsafe fn line(quants: *const u8, index: usize, v: usize) -> __m256i {
    // SAFETY: the line is one of the block's.
    unsafe { _mm256_loadu_si256(quants.add(64 * index + 32 * v).cast()) }
}

/// As [`dots8`], over the inputs of some octets. Two `maddubs` of at most `2 * 63 * 127` each fit 16 bits.
#[inline(always)]
unsafe fn dots6<L: Layout, const V: usize, const R: usize>(
    quants: *const u8,
    x: *const i8,
    octets: Range<usize>,
) -> [[__m256i; V]; R] {
    // SAFETY: the octets are the block's; V vectors of its quants and R blocks of x are valid.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let offset = _mm256_set1_epi8(if matches!(L::OFFSET, Offset::Middle) { 32 } else { 0 });
        let mut sums = [[_mm256_setzero_si256(); V]; R];
        for octet in octets {
            let mut signed = fours::<L, V>(quants, octet);
            for four in &mut signed {
                for four in four {
                    *four = _mm256_sub_epi8(*four, offset);
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = x.add(r * BLOCK + 8 * octet);
                let x = [every_lane(x), every_lane(x.add(4))];
                for v in 0..V {
                    let (early, late) = (signed[0][v], signed[1][v]);
                    let early = _mm256_maddubs_epi16(_mm256_abs_epi8(early), _mm256_sign_epi8(x[0], early));
                    let late = _mm256_maddubs_epi16(_mm256_abs_epi8(late), _mm256_sign_epi8(x[1], late));
                    sums[v] = _mm256_add_epi32(sums[v], _mm256_madd_epi16(_mm256_add_epi16(early, late), ones));
                }
            }
        }
        sums
    }
}

/// `maddubs` of the weights' absolute values and the activations with the weights' signs: at most `2 * 128 * 127`,
/// which just fits 16 bits once, so every pair is widened.
#[inline(always)]
unsafe fn dots8<const V: usize, const R: usize>(quants: *const u8, x: *const i8) -> [[__m256i; V]; R] {
    // SAFETY: V vectors of a block's quants and R blocks of x are valid.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut sums = [[_mm256_setzero_si256(); V]; R];
        for group in 0..BLOCK / 4 {
            let mut signed = [ones; V];
            let mut positive = [ones; V];
            for v in 0..V {
                let stored = _mm256_loadu_si256(quants.add(64 * group + 32 * v).cast());
                signed[v] = _mm256_xor_si256(stored, _mm256_set1_epi8(-128));
                positive[v] = _mm256_abs_epi8(signed[v]);
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = every_lane(x.add(r * BLOCK + 4 * group));
                for v in 0..V {
                    let pairs = _mm256_maddubs_epi16(positive[v], _mm256_sign_epi8(x, signed[v]));
                    sums[v] = _mm256_add_epi32(sums[v], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        sums
    }
}

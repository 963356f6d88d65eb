//! Vectors of sixteen floats for three instruction sets: the same width everywhere, so that sums have the same order.
#![allow(unsafe_code)] // Intrinsics and pointer loads; callers guarantee the instruction set and the bounds.

use half::f16;

/// Floats of a vector.
pub(crate) const WIDTH: usize = 16;

/// Operations on a vector of [`WIDTH`] floats, for the kernels of adapters and of attention.
///
/// # Safety
/// Implementations may use instructions that not every CPU has: all functions require that the instruction set is
/// there, and pointers must be valid for `WIDTH` elements.
pub(crate) unsafe trait Simd: Copy {
    /// Vectors that the registers hold.
    const REGISTERS: usize = 8;
    /// Sixteen integers of 32 bits.
    type Ints: Copy;
    /// Sixteen pairs of integers of 16 bits.
    type Pairs: Copy;

    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn load_f16(p: *const f16) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// Narrowed to the nearest halves, ties to even.
    unsafe fn store_f16(self, p: *mut f16);
    /// `self + a * b`, rounded once.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// `sums + b[2 n] * pair[0] + b[2 n + 1] * pair[1]` for sixteen `n`; see [`Simd::pairs`] for `b`.
    unsafe fn add_pairs(sums: Self::Ints, b: Self::Pairs, pair: [i16; 2]) -> Self::Ints;
    /// Sixteen pairs of bytes, widened to 16 bits.
    unsafe fn pairs(p: *const i8) -> Self::Pairs;
    unsafe fn no_ints() -> Self::Ints;
    unsafe fn from_ints(ints: Self::Ints) -> Self;
    /// The upper half added to the lower, until one is left.
    unsafe fn sum(self) -> f32;
}

/// Compiles `$body::<S>`, or `$body::<S, E>` for an element type, for each instruction set and calls the one of `$level`.
macro_rules! at_level {
    ($level:ident, $body:ident $(::<$element:ident>)?, ($($argument:ident: $type:ty),*)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn avx2$(<$element: crate::simd::Element>)?($($argument: $type),*) {
            // SAFETY: passed on.
            unsafe { $body::<crate::simd::x86::Avx2 $(, $element)?>($($argument),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw")]
        unsafe fn avx512$(<$element: crate::simd::Element>)?($($argument: $type),*) {
            // SAFETY: passed on.
            unsafe { $body::<crate::simd::x86::Avx512 $(, $element)?>($($argument),*) }
        }
        match $level {
            #[cfg(target_arch = "x86_64")]
            crate::level::Level::Avx512Vnni => avx512$(::<$element>)?($($argument),*),
            #[cfg(target_arch = "x86_64")]
            crate::level::Level::Avx2 | crate::level::Level::AvxVnni => avx2$(::<$element>)?($($argument),*),
            #[cfg(target_arch = "aarch64")]
            crate::level::Level::NeonI8mm => $body::<crate::simd::aarch64::Neon $(, $element)?>($($argument),*),
            _ => $body::<crate::simd::Portable $(, $element)?>($($argument),*),
        }
    }};
}
pub(crate) use at_level;

/// An element type of adapter matrices and of keys and values.
pub(crate) trait Element: Copy + Default + Send + Sync {
    /// # Safety
    /// As [`Simd`].
    unsafe fn load<S: Simd>(p: *const Self) -> S;
    /// # Safety
    /// As [`Simd`].
    unsafe fn store<S: Simd>(x: S, p: *mut Self);
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S {
        // SAFETY: the caller's promise.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(x: S, p: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe { x.store(p) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(p) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(x: S, p: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe { x.store_f16(p) }
    }
}

/// `N` halves, widened without F16C: Miri, which checks the kernels' memory accesses, does not know its instructions.
#[cfg(all(miri, target_arch = "x86_64"))]
#[inline(always)]
pub(crate) unsafe fn widened<const N: usize>(p: *const u8) -> [f32; N] {
    // SAFETY: valid for so many halves by the caller's promise.
    unsafe { p.cast::<[u16; N]>().read_unaligned() }.map(|bits| f16::from_bits(bits).to_f32_const())
}

/// The nearest halves, without F16C; as [`widened`].
#[cfg(all(miri, target_arch = "x86_64"))]
#[inline(always)]
pub(crate) unsafe fn store_narrowed<S: Simd>(x: S, p: *mut f16) {
    let mut floats = [0.0; WIDTH];
    // SAFETY: sixteen floats here and, by the caller's promise, sixteen halves there.
    unsafe {
        x.store(floats.as_mut_ptr());
        p.cast::<[f16; WIDTH]>().write_unaligned(floats.map(f16::from_f32_const));
    }
}

/// Plain Rust; on AArch64 the compiler makes NEON of it.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; WIDTH]);

// SAFETY: needs no instruction set; pointers by the caller's promise.
unsafe impl Simd for Portable {
    type Ints = [i32; WIDTH];
    type Pairs = [[i16; 2]; WIDTH];

    #[inline(always)]
    unsafe fn add_pairs(mut sums: Self::Ints, b: Self::Pairs, pair: [i16; 2]) -> Self::Ints {
        let [x, y] = pair.map(i32::from);
        for (sum, b) in sums.iter_mut().zip(b) {
            *sum += i32::from(b[0]) * x + i32::from(b[1]) * y;
        }
        sums
    }
    #[inline(always)]
    unsafe fn pairs(p: *const i8) -> Self::Pairs {
        // SAFETY: valid for sixteen pairs.
        unsafe { p.cast::<[[i8; 2]; WIDTH]>().read_unaligned() }.map(|pair| pair.map(i16::from))
    }
    #[inline(always)]
    unsafe fn no_ints() -> Self::Ints {
        [0; WIDTH]
    }
    #[inline(always)]
    unsafe fn from_ints(ints: Self::Ints) -> Self {
        Self(ints.map(|int| int as f32))
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; WIDTH])
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; WIDTH])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: valid for sixteen floats; the read does not need alignment.
        Self(unsafe { p.cast::<[f32; WIDTH]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self {
        // SAFETY: valid for sixteen elements.
        Self(unsafe { p.cast::<[f16; WIDTH]>().read_unaligned() }.map(f16::to_f32_const))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: valid for sixteen floats.
        unsafe { p.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16) {
        // SAFETY: valid for sixteen elements.
        unsafe { p.cast::<[f16; WIDTH]>().write_unaligned(self.0.map(f16::from_f32_const)) }
    }
    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for i in 0..WIDTH {
            self.0[i] = a.0[i].mul_add(b.0[i], self.0[i]);
        }
        self
    }
    #[inline(always)]
    unsafe fn sum(mut self) -> f32 {
        let mut half = WIDTH / 2;
        while half > 0 {
            for i in 0..half {
                self.0[i] += self.0[i + half];
            }
            half /= 2;
        }
        self.0[0]
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::Simd;

    /// Two AVX2 registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    #[inline(always)]
    unsafe fn sum8(eight: __m256) -> f32 {
        // SAFETY: AVX by the caller's promise.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    // SAFETY: only AVX2, FMA and F16C instructions, which the caller vouches for.
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe impl Simd for Avx2 {
        type Ints = [__m256i; 2];
        type Pairs = [__m256i; 2];

        #[inline(always)]
        unsafe fn add_pairs(sums: Self::Ints, b: Self::Pairs, pair: [i16; 2]) -> Self::Ints {
            unsafe {
                let pair = _mm256_set1_epi32(both(pair));
                [
                    _mm256_add_epi32(sums[0], _mm256_madd_epi16(b[0], pair)),
                    _mm256_add_epi32(sums[1], _mm256_madd_epi16(b[1], pair)),
                ]
            }
        }
        #[inline(always)]
        unsafe fn pairs(p: *const i8) -> Self::Pairs {
            unsafe {
                [
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())),
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(p.add(16).cast())),
                ]
            }
        }
        #[inline(always)]
        unsafe fn no_ints() -> Self::Ints {
            unsafe { [_mm256_setzero_si256(); 2] }
        }
        #[inline(always)]
        unsafe fn from_ints(ints: Self::Ints) -> Self {
            unsafe { Self(_mm256_cvtepi32_ps(ints[0]), _mm256_cvtepi32_ps(ints[1])) }
        }
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Self(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> Self {
            #[cfg(miri)]
            return unsafe { Self::load(super::widened::<16>(p.cast()).as_ptr()) };
            #[cfg(not(miri))]
            unsafe {
                Self(_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())))
            }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe {
                _mm256_storeu_ps(p, self.0);
                _mm256_storeu_ps(p.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn store_f16(self, p: *mut f16) {
            #[cfg(miri)]
            return unsafe { super::store_narrowed(self, p) };
            #[cfg(not(miri))]
            unsafe {
                _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
                _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1));
            }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe { sum8(_mm256_add_ps(self.0, self.1)) }
        }
    }

    /// A pair in one lane, as memory has it.
    #[inline(always)]
    fn both([low, high]: [i16; 2]) -> i32 {
        i32::from(high) << 16 | i32::from(low.cast_unsigned())
    }

    /// One AVX-512 register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY: only AVX-512 F and BW instructions, which the caller vouches for.
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe impl Simd for Avx512 {
        const REGISTERS: usize = 32;
        type Ints = __m512i;
        type Pairs = __m512i;

        #[inline(always)]
        unsafe fn add_pairs(sums: __m512i, b: __m512i, pair: [i16; 2]) -> __m512i {
            unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(b, _mm512_set1_epi32(both(pair)))) }
        }
        #[inline(always)]
        unsafe fn pairs(p: *const i8) -> __m512i {
            unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn no_ints() -> __m512i {
            unsafe { _mm512_setzero_si512() }
        }
        #[inline(always)]
        unsafe fn from_ints(ints: __m512i) -> Self {
            unsafe { Self(_mm512_cvtepi32_ps(ints)) }
        }

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm512_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Self(_mm512_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { Self(_mm512_loadu_ps(p)) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> Self {
            #[cfg(miri)]
            return unsafe { Self::load(super::widened::<16>(p.cast()).as_ptr()) };
            #[cfg(not(miri))]
            unsafe {
                Self(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast())))
            }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm512_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn store_f16(self, p: *mut f16) {
            #[cfg(miri)]
            return unsafe { super::store_narrowed(self, p) };
            #[cfg(not(miri))]
            unsafe {
                _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
            }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe {
                let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
                sum8(_mm256_add_ps(_mm512_castps512_ps256(self.0), upper))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64 {
    use std::arch::aarch64::*;

    use half::f16;

    use super::Simd;
    use crate::neon::{store_narrowed, widen};

    /// Four NEON registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Neon([float32x4_t; 4]);

    // SAFETY: only instructions of every AArch64.
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe impl Simd for Neon {
        type Ints = [int32x4_t; 4];
        type Pairs = [int16x8_t; 4];

        #[inline(always)]
        unsafe fn add_pairs(sums: Self::Ints, b: Self::Pairs, pair: [i16; 2]) -> Self::Ints {
            unsafe {
                let [x, y] = pair.map(|x| u32::from(x.cast_unsigned()));
                let pair = vreinterpretq_s16_u32(vdupq_n_u32(y << 16 | x));
                std::array::from_fn(|i| {
                    let low = vmull_s16(vget_low_s16(b[i]), vget_low_s16(pair));
                    vaddq_s32(sums[i], vpaddq_s32(low, vmull_high_s16(b[i], pair)))
                })
            }
        }
        #[inline(always)]
        unsafe fn pairs(p: *const i8) -> Self::Pairs {
            unsafe { std::array::from_fn(|i| vmovl_s8(vld1_s8(p.add(8 * i)))) }
        }
        #[inline(always)]
        unsafe fn no_ints() -> Self::Ints {
            unsafe { [vdupq_n_s32(0); 4] }
        }
        #[inline(always)]
        unsafe fn from_ints(ints: Self::Ints) -> Self {
            unsafe { Self(ints.map(|four| vcvtq_f32_s32(four))) }
        }
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self::splat(0.0) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Self([vdupq_n_f32(x); 4]) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { Self([vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))]) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> Self {
            unsafe { Self([widen(p.cast()), widen(p.add(4).cast()), widen(p.add(8).cast()), widen(p.add(12).cast())]) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            for (i, four) in self.0.into_iter().enumerate() {
                unsafe { vst1q_f32(p.add(4 * i), four) }
            }
        }
        #[inline(always)]
        unsafe fn store_f16(self, p: *mut f16) {
            for (i, four) in self.0.into_iter().enumerate() {
                unsafe { store_narrowed(four, p.add(4 * i).cast()) }
            }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            unsafe { Self(std::array::from_fn(|i| vfmaq_f32(self.0[i], a.0[i], b.0[i]))) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe {
                let [a, b, c, d] = self.0;
                let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
                let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
                vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
            }
        }
    }
}

//! A vector of floats, for three instruction sets.
#![allow(unsafe_code)] // Intrinsics and pointer loads; callers guarantee the instruction set and the bounds.

use half::f16;

/// Instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Anything.
    Portable,
    /// x86-64 with AVX2, FMA and F16C (since 2013).
    Avx2,
    /// x86-64 with AVX-512 F.
    Avx512,
}

impl Level {
    /// All levels this CPU can run, the best last.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                levels.push(Self::Avx2);
                if has!("avx512f") {
                    levels.push(Self::Avx512);
                }
            }
        }
        levels
    }

    /// The best level this CPU can run.
    pub fn best() -> Self {
        Self::available().into_iter().max().unwrap_or(Self::Portable)
    }
}

/// What the kernels need of a vector of `WIDTH` floats.
///
/// # Safety
/// Implementations may use instructions that not every CPU has: all functions require that the instruction set is
/// there, and pointers must be valid for `WIDTH` elements.
pub(super) unsafe trait Simd: Copy {
    const WIDTH: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn load_f16(p: *const f16) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// `self + a * b`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn sum(self) -> f32;
}

/// An element type of adapter matrices.
pub(super) trait Element: Copy + Into<f32> + Send + Sync {
    /// # Safety
    /// As [`Simd`].
    unsafe fn load<S: Simd>(p: *const Self) -> S;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S {
        // SAFETY: the caller's promise.
        unsafe { S::load(p) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(p) }
    }
}

/// Eight floats in plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

// SAFETY: needs no instruction set; pointers by the caller's promise.
unsafe impl Simd for Portable {
    const WIDTH: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 8])
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: valid for eight floats; the read does not need alignment.
        Self(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self {
        // SAFETY: valid for eight elements.
        Self(unsafe { p.cast::<[f16; 8]>().read_unaligned() }.map(f16::to_f32))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: valid for eight floats.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for i in 0..8 {
            self.0[i] += a.0[i] * b.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        self.0.iter().sum()
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::Simd;

    /// Eight floats in an AVX2 register.
    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx2(__m256);

    // SAFETY: only AVX2, FMA and F16C instructions, which the caller vouches for.
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe impl Simd for Avx2 {
        const WIDTH: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Self(_mm256_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(p)) }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> Self {
            unsafe { Self(_mm256_cvtph_ps(_mm_loadu_si128(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm256_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe {
                let half = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
                _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
            }
        }
    }

    /// Sixteen floats in an AVX-512 register.
    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx512(__m512);

    // SAFETY: only AVX-512 F instructions, which the caller vouches for.
    #[allow(clippy::undocumented_unsafe_blocks)]
    unsafe impl Simd for Avx512 {
        const WIDTH: usize = 16;

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
            unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm512_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
    }
}

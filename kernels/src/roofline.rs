//! Roofline of this machine on one thread: the limits that kernels are measured against.
#![allow(unsafe_code)] // Intrinsics in loops without memory, after the level was checked.

use std::{hint::black_box, time::Instant};

use crate::{
    level::Level,
    memory::{LINE, fetch_line},
    simd::{Simd, WIDTH, at_level},
};

/// Bytes per second at which one thread reads memory in order: the fastest of many pieces of a buffer that is several
/// times larger than the last cache, read `passes` times over.
pub fn read_bandwidth(bytes: usize, passes: usize) -> f64 {
    let words = vec![1u64; bytes / 8];
    let piece = (1 << 20) / 8;
    let mut seconds = f64::INFINITY;
    for _ in 0..passes {
        for piece in words.chunks_exact(piece) {
            seconds = seconds.min(fastest(1, || {
                // Many sums, so that the compiler may use vectors and no chain of additions holds them up.
                let mut sums = [0u64; 32];
                for part in piece.chunks_exact(32) {
                    ask_ahead(part);
                    for (sum, word) in sums.iter_mut().zip(part) {
                        *sum = sum.wrapping_add(*word);
                    }
                }
                black_box(sums);
            }));
        }
    }
    (piece * 8) as f64 / seconds
}

/// Prefetches explicitly, as the kernels do: hardware prefetch alone does not reach the full bandwidth.
fn ask_ahead(part: &[u64]) {
    for line in part.chunks(LINE / 8) {
        fetch_line(line.as_ptr().wrapping_add(512).cast());
    }
}

/// Integer operations (a multiplication and an addition are two) per second of the level's own instructions for
/// products of 8 bits, from registers: `maddubs` and an addition for AVX2, `dpbusd` for VNNI, `smmla` for I8MM. `None` where the
/// CPU has not the level, or the level no such instruction.
pub fn peak(level: Level) -> Option<f64> {
    if !level.is_available() {
        return None;
    }
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: the level is available.
            let seconds = fastest(20, || unsafe { x86::maddubs(ROUNDS) });
            Some((ROUNDS * CHAINS as u64 * 64) as f64 / seconds)
        }
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => {
            // SAFETY: the level is available.
            let seconds = fastest(20, || unsafe { x86::dpbusd256(ROUNDS) });
            Some((ROUNDS * CHAINS as u64 * 64) as f64 / seconds)
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => {
            // SAFETY: the level is available.
            let seconds = fastest(20, || unsafe { x86::dpbusd512(ROUNDS) });
            Some((ROUNDS * CHAINS as u64 * 128) as f64 / seconds)
        }
        #[cfg(target_arch = "aarch64")]
        Level::NeonI8mm => {
            // SAFETY: the level is available.
            let seconds = fastest(20, || unsafe { aarch64::smmla(ROUNDS) });
            Some((ROUNDS * CHAINS as u64 * 64) as f64 / seconds)
        }
        _ => None,
    }
}

/// Operations of 32-bit floats (a multiplication and an addition are two) per second, fused, from registers.
///
/// # Panics
/// The CPU has not the level.
pub fn peak_floats(level: Level) -> f64 {
    assert!(level.is_available(), "this CPU has no {level:?}");
    // SAFETY: the level is available.
    let seconds = fastest(20, || unsafe { fused(level, ROUNDS) });
    (ROUNDS * FUSED_CHAINS as u64 * 2 * WIDTH as u64) as f64 / seconds
}

unsafe fn fused(level: Level, rounds: u64) {
    // SAFETY: passed on.
    unsafe { at_level!(level, fused_with, (rounds: u64)) }
}

#[inline(always)]
unsafe fn fused_with<S: Simd>(rounds: u64) {
    let ones = black_box([1.0f32; WIDTH]);
    // SAFETY: sixteen floats; the instruction set by the caller's promise.
    unsafe {
        let (a, b) = (S::load(ones.as_ptr()), S::load(ones.as_ptr()));
        let mut sums = [S::zero(); FUSED_CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.add_product(a, b);
            }
        }
        let mut out = [0.0; WIDTH];
        for sum in sums {
            sum.store(out.as_mut_ptr());
            black_box(&out);
        }
    }
}

/// Chains of vectors of sixteen floats in registers: enough for the latency of a fused multiplication.
const FUSED_CHAINS: usize = 6;

/// Rounds of a loop: some milliseconds.
const ROUNDS: u64 = 200_000;

/// Independent sums in it: more than latency times throughput of the instructions.
const CHAINS: usize = 12;

/// Seconds of the fastest of several runs.
pub fn fastest(runs: usize, mut run: impl FnMut()) -> f64 {
    (0..runs)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{
        arch::{asm, x86_64::*},
        hint::black_box,
    };

    use super::CHAINS;

    #[target_feature(enable = "avx2")]
    pub(super) fn maddubs(rounds: u64) {
        let (mut a, b) = black_box((_mm256_set1_epi8(1), _mm256_set1_epi8(1)));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                // SAFETY: no instruction at all; the compiler has to think that `a` is another one each time.
                unsafe { asm!("/* {0} */", inout(ymm_reg) a, options(pure, nomem, nostack, preserves_flags)) };
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a, b));
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn dpbusd256(rounds: u64) {
        let (a, b) = black_box((_mm256_set1_epi8(1), _mm256_set1_epi8(1)));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn dpbusd512(rounds: u64) {
        let (a, b) = black_box((_mm512_set1_epi8(1), _mm512_set1_epi8(1)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::{arch::aarch64::*, hint::black_box};

    use super::CHAINS;
    use crate::neon;

    #[target_feature(enable = "neon,i8mm")]
    pub(super) fn smmla(rounds: u64) {
        let (a, b) = black_box((vdupq_n_s8(1), vdupq_n_s8(1)));
        let mut sums = [vdupq_n_s32(0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                // SAFETY: registers only.
                *sum = unsafe { neon::smmla(*sum, a, b) };
            }
        }
        black_box(sums);
    }
}

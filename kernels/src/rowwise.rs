//! Row-wise operations between linear layers: RMS norm and SiLU gate.
//!
//! Meant to be called from [`Quantizer::rows_with`](crate::Quantizer::rows_with), so that a row is normed or gated
//! and quantised while it is near, by the thread that does both. Plain Rust that the compiler makes vectors of; sums
//! have sixteen lanes and roundings are fixed, so every instruction set gives the same bits.
#![allow(unsafe_code)] // Functions compiled for an instruction set, called after the level was checked.

use crate::level::Level;

const LANES: usize = 16;

/// Compiles `$body` for AVX2 too and calls the one of `$level`.
macro_rules! at_level {
    ($level:ident, $body:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2($($argument: $type),*) $(-> $result)? {
            $body($($argument),*)
        }
        assert!($level.is_available(), "this CPU has no {:?}", $level);
        match $level {
            #[cfg(target_arch = "x86_64")]
            crate::level::Level::Avx2 | crate::level::Level::AvxVnni | crate::level::Level::Avx512Vnni => {
                // SAFETY: the level was checked.
                unsafe { avx2($($argument),*) }
            }
            _ => $body($($argument),*),
        }
    }};
}
pub(crate) use at_level;

/// `out = x / sqrt(mean(x^2) + epsilon) * gain`, all of one length.
///
/// # Panics
/// The lengths differ, or the CPU has not the level.
pub fn rms_norm(level: Level, x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == gain.len() && x.len() == out.len(), "a norm of {} with {} gains", x.len(), gain.len());
    at_level!(level, rms_norm_body(x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]));
}

/// `out = silu(gate) * up` with `silu(g) = g / (1 + exp(-g))`, all of one length; within 4 units in the last place.
///
/// # Panics
/// The lengths differ, or the CPU has not the level.
pub fn silu_gate(level: Level, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "{} gates for {} values", gate.len(), up.len());
    at_level!(level, silu_gate_body(gate: &[f32], up: &[f32], out: &mut [f32]));
}

#[inline(always)]
fn rms_norm_body(x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut sums = [0.0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for part in whole {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum = x.mul_add(*x, *sum);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum = x.mul_add(*x, *sum);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    let scale = 1.0 / (sums[0] / x.len() as f32 + epsilon).sqrt();
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = x * scale * gain;
    }
}

#[inline(always)]
fn silu_gate_body(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp(-gate)) * up;
    }
}

/// `e^x` where that is a normal number, else the nearest that is; NaN for NaN.
///
/// `x = n ln 2 + r`, `e^r` by its Taylor polynomial: with `|r| <= 0.35` the seventh power's term is below half a unit
/// in the last place.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut e = 1.0 / 720.0;
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        e = r.mul_add(e, factor);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    e * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, size: f32) -> Vec<f32> {
        (0..n).map(|i| size * (((i + 1) * 7919 % 997) as f32 / 499.0 - 1.0)).collect()
    }

    #[test]
    fn exp_is_within_three_units_in_the_last_place() {
        for x in numbers(997, 86.9) {
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 3.0 * f64::from(f32::EPSILON) / 2.0, "e^{x}: off by {error}");
        }
        assert!(exp(f32::NAN).is_nan() && exp(1e9).is_finite() && exp(-1e9) > 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn rows_are_normed_and_gated_alike_on_every_instruction_set() {
        for n in [1, 15, 16, 100, 576, 1000] {
            let (x, gain) = (numbers(n, 3.0), numbers(n + 1, 20.0)[1..].to_vec());
            let mean = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / n as f64;
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for level in Level::available() {
                let (mut normed, mut gated) = (vec![0.0; n], vec![0.0; n]);
                rms_norm(level, &x, &gain, 1e-5, &mut normed);
                silu_gate(level, &gain, &x, &mut gated);
                for i in 0..n {
                    let (x, g) = (f64::from(x[i]), f64::from(gain[i]));
                    let want = x / (mean + 1e-5).sqrt() * g;
                    assert!((f64::from(normed[i]) - want).abs() <= 1e-6 * want.abs(), "{level:?} norm {i} of {n}");
                    let want = g / (1.0 + (-g).exp()) * x;
                    assert!((f64::from(gated[i]) - want).abs() <= 1e-6 * want.abs(), "{level:?} gate {i} of {n}");
                }
                if level == Level::Portable {
                    (first, second) = (normed, gated);
                } else {
                    assert!(first == normed && second == gated, "{level:?}");
                }
            }
        }
    }
}

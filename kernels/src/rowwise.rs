//! Row-wise operations between linear layers: norms and activations.
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

/// `out = (x - mean(x)) / sqrt(var(x) + epsilon) * gain + bias`, all of one length; an empty bias is none.
///
/// # Panics
/// The lengths differ, or the CPU has not the level.
pub fn layer_norm(level: Level, x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == gain.len() && x.len() == out.len(), "a norm of {} with {} gains", x.len(), gain.len());
    assert!(bias.is_empty() || x.len() == bias.len(), "a norm of {} with a bias of {}", x.len(), bias.len());
    at_level!(level, layer_norm_body(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]));
}

/// Activation of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x * Phi(x)` by its tanh approximation: `x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `x * Phi(x)`.
    Gelu,
    /// `max(x, 0)^2`.
    ReluSquared,
}

/// `out = activation(gate) * up`, all of one length; SiLU within 4 units in the last place, GELU within `2e-7 |x|` of the
/// activation.
///
/// # Panics
/// The lengths differ, or the CPU has not the level.
pub fn gated(level: Level, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "{} gates for {} values", gate.len(), up.len());
    match activation {
        Activation::Silu => at_level!(level, silu_gate(gate: &[f32], up: &[f32], out: &mut [f32])),
        Activation::GeluTanh => at_level!(level, gelu_tanh_gate(gate: &[f32], up: &[f32], out: &mut [f32])),
        Activation::Gelu => at_level!(level, gelu_gate(gate: &[f32], up: &[f32], out: &mut [f32])),
        Activation::ReluSquared => at_level!(level, relu_squared_gate(gate: &[f32], up: &[f32], out: &mut [f32])),
    }
}

/// `out = activation(x)`. As [`gated`].
///
/// # Panics
/// The lengths differ, or the CPU has not the level.
pub fn activated(level: Level, activation: Activation, x: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len(), "{} values for {}", x.len(), out.len());
    match activation {
        Activation::Silu => at_level!(level, silu_all(x: &[f32], out: &mut [f32])),
        Activation::GeluTanh => at_level!(level, gelu_tanh_all(x: &[f32], out: &mut [f32])),
        Activation::Gelu => at_level!(level, gelu_all(x: &[f32], out: &mut [f32])),
        Activation::ReluSquared => at_level!(level, relu_squared_all(x: &[f32], out: &mut [f32])),
    }
}

/// `out[i]` = row `i` of `matrix` times `x`, each sum in lanes of its own.
///
/// # Panics
/// The lengths do not fit each other, or the CPU has not the level.
pub fn dots(level: Level, matrix: &[f32], x: &[f32], out: &mut [f32]) {
    assert!(matrix.len() == x.len() * out.len(), "{} weights for {} to {}", matrix.len(), x.len(), out.len());
    at_level!(level, dots_body(matrix: &[f32], x: &[f32], out: &mut [f32]));
}

#[inline(always)]
fn dots_body(matrix: &[f32], x: &[f32], out: &mut [f32]) {
    for (out, row) in out.iter_mut().zip(matrix.chunks_exact(x.len())) {
        let mut sums = [0.0f32; LANES];
        let ((rows, row_rest), (xs, x_rest)) = (row.as_chunks::<LANES>(), x.as_chunks::<LANES>());
        for (row, x) in rows.iter().zip(xs) {
            for ((sum, row), x) in sums.iter_mut().zip(row).zip(x) {
                *sum = row.mul_add(*x, *sum);
            }
        }
        for ((sum, row), x) in sums.iter_mut().zip(row_rest).zip(x_rest) {
            *sum = row.mul_add(*x, *sum);
        }
        *out = folded(sums);
    }
}

/// `out *= 1 / (1 + exp(-gate))`, of one length.
///
/// # Panics
/// The lengths differ, or the CPU has not the level.
pub fn times_sigmoid(level: Level, gate: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len(), "{} gates for {} values", gate.len(), out.len());
    at_level!(level, times_sigmoid_body(gate: &[f32], out: &mut [f32]));
}

#[inline(always)]
fn times_sigmoid_body(gate: &[f32], out: &mut [f32]) {
    for (out, gate) in out.iter_mut().zip(gate) {
        *out /= 1.0 + exp(-gate);
    }
}

/// `out += factor * x`, of one length.
///
/// # Panics
/// The lengths differ, or the CPU has not the level.
pub fn add_scaled(level: Level, x: &[f32], factor: f32, out: &mut [f32]) {
    assert!(x.len() == out.len(), "{} values for {}", x.len(), out.len());
    at_level!(level, add_scaled_body(x: &[f32], factor: f32, out: &mut [f32]));
}

#[inline(always)]
fn add_scaled_body(x: &[f32], factor: f32, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = factor.mul_add(*x, *out);
    }
}

/// `add` over `x` from zero, in lanes, with the same bits on every instruction set.
#[inline(always)]
pub(crate) fn sum(x: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for part in whole {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum = add(*sum, *x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum = add(*sum, *x);
    }
    folded(sums)
}

#[inline(always)]
fn folded(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

/// `1 / sqrt(mean(x^2) + epsilon)`.
#[inline(always)]
pub(crate) fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum(x, |sum, x| x.mul_add(x, sum)) / x.len() as f32 + epsilon).sqrt()
}

#[inline(always)]
fn rms_norm_body(x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = inverse_rms(x, epsilon);
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = x * scale * gain;
    }
}

#[inline(always)]
fn layer_norm_body(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let mean = sum(x, |sum, x| sum + x) / x.len() as f32;
    let variance = sum(x, |sum, x| (x - mean).mul_add(x - mean, sum)) / x.len() as f32;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = (x - mean) * scale * gain;
    }
    for (out, bias) in out.iter_mut().zip(bias) {
        *out += bias;
    }
}

/// Bodies of [`gated`] and [`activated`] for one activation.
macro_rules! bodies {
    ($activation:ident, $gate:ident, $all:ident) => {
        #[inline(always)]
        fn $gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = $activation(*gate) * up;
            }
        }

        #[inline(always)]
        fn $all(x: &[f32], out: &mut [f32]) {
            for (out, x) in out.iter_mut().zip(x) {
                *out = $activation(*x);
            }
        }
    };
}
bodies!(silu, silu_gate, silu_all);
bodies!(gelu_tanh, gelu_tanh_gate, gelu_tanh_all);
bodies!(gelu, gelu_gate, gelu_all);
bodies!(relu_squared, relu_squared_gate, relu_squared_all);

#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const TWICE_ROOT: f32 = 1.595_769;
    let inner = TWICE_ROOT * (x * x * x).mul_add(0.044_715, x);
    x / (1.0 + exp(-inner))
}

/// With the error function of Abramowitz and Stegun, 7.1.26, whose error is 1.5e-7.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(0.327_591_1, 1.0);
    let mut poly = 1.061_405_4;
    for factor in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        poly = t.mul_add(poly, factor);
    }
    let beyond = t * poly * exp(-z * z);
    let phi = if x < 0.0 { 0.5 * beyond } else { 1.0 - 0.5 * beyond };
    x * phi
}

#[inline(always)]
fn relu_squared(x: f32) -> f32 {
    let x = if x > 0.0 { x } else { 0.0 };
    x * x
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
                super::gated(level, Activation::Silu, &gain, &x, &mut gated);
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

    #[test]
    fn activations_are_those_of_their_definitions_alike_on_every_instruction_set() {
        let root = (2.0 / std::f64::consts::PI).sqrt();
        // Phi by its series, summed to the end.
        let phi = |x: f64| {
            let (mut term, mut sum, mut n) = (x, x, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= x * x / (2.0 * n + 1.0);
                sum += term;
            }
            0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
        };
        let x = numbers(333, 6.0);
        for (activation, want) in [
            (Activation::Silu, &(|x: f64| x / (1.0 + (-x).exp())) as &dyn Fn(f64) -> f64),
            (Activation::GeluTanh, &|x: f64| 0.5 * x * (1.0 + (root * (x + 0.044_715 * x * x * x)).tanh())),
            (Activation::Gelu, &|x: f64| x * phi(x)),
            (Activation::ReluSquared, &|x: f64| x.max(0.0).powi(2)),
        ] {
            let mut first = vec![0.0; x.len()];
            activated(Level::Portable, activation, &x, &mut first);
            for (x, y) in x.iter().zip(&first) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                assert!(
                    (y - want(x)).abs() <= 3e-7 * x.abs().max(x * x),
                    "{activation:?}({x}) is {y}, not {}",
                    want(x)
                );
            }
            for level in Level::available() {
                let (mut plain, mut product) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                activated(level, activation, &x, &mut plain);
                gated(level, activation, &x, &vec![1.0; x.len()], &mut product);
                assert!(plain == first && product == first, "{level:?} {activation:?}");
            }
        }
    }

    #[test]
    fn layer_norms_are_alike_on_every_instruction_set() {
        for n in [1, 15, 64, 1000] {
            let (x, gain, bias) =
                (numbers(n, 3.0), numbers(n + 1, 2.0)[1..].to_vec(), numbers(n + 2, 1.0)[2..].to_vec());
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n as f64;
            let mut first = vec![0.0; n];
            layer_norm(Level::Portable, &x, &gain, &bias, 1e-5, &mut first);
            for i in 0..n {
                let want =
                    (f64::from(x[i]) - mean) / (variance + 1e-5).sqrt() * f64::from(gain[i]) + f64::from(bias[i]);
                assert!((f64::from(first[i]) - want).abs() <= 1e-5, "{i} of {n}: {} and {want}", first[i]);
            }
            for level in Level::available() {
                let mut normed = vec![0.0; n];
                layer_norm(level, &x, &gain, &bias, 1e-5, &mut normed);
                assert_eq!(normed, first, "{level:?}");
            }
        }
    }
}

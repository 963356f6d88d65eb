//! Rotary position embedding: rotation angles of each pair of a head by position.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::config_error::ConfigError;

/// Rotary embedding of some layers.
///
/// The first `dim` floats of a head are turned in pairs: float `i` with float `i + dim / 2`, or, if `interleaved`, float
/// `2 i` with float `2 i + 1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the geometric series of frequencies.
    pub theta: f32,
    /// Leading floats of a head that are turned; even.
    pub dim: usize,
    /// Whether the floats of a pair are side by side.
    pub interleaved: bool,
    /// Scaling of the frequencies for longer contexts.
    pub scaling: RopeScaling,
    /// Factor of cosines and sines (`attention_factor`).
    pub attention_factor: f32,
}

/// Ways to extend the frequencies beyond the trained context. `original_context` is in positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// All frequencies are divided by this factor (position interpolation).
    Linear(f32),
    /// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, with a smooth transition.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f32,
        /// Wavelengths beyond `original_context / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Original context.
        original_context: usize,
    },
    /// YaRN: pairs that turn often within the original context are kept, those that turn rarely divided by `factor`.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f32,
        /// Turns from which on a pair is kept.
        beta_fast: f32,
        /// Turns up to which a pair is divided.
        beta_slow: f32,
        /// Whether the bounds of the transition are whole pairs.
        truncate: bool,
        /// Original context.
        original_context: usize,
    },
    /// LongRoPE: one divisor for each pair, by whether the served context is longer than the original.
    LongRope {
        /// Divisors for contexts up to the original.
        short: Vec<f32>,
        /// Divisors for longer contexts.
        long: Vec<f32>,
        /// Original context.
        original_context: usize,
    },
    /// One divisor for each pair, as in GGUF's tensor `rope_freqs.weight`.
    Divisors(Vec<f32>),
    /// Only the first pairs are turned, so many.
    Proportional(usize),
}

/// Tables of a [`Rope`].
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryTables {
    /// Cosines, `[positions, dim / 2]`.
    pub cos: Vec<f32>,
    /// Sines, `[positions, dim / 2]`.
    pub sin: Vec<f32>,
    /// As [`Rope::dim`].
    pub dim: usize,
    /// As [`Rope::interleaved`].
    pub interleaved: bool,
}

impl Rope {
    /// Rotation of a whole head without scaling.
    #[must_use]
    pub fn new(theta: f32, head_dim: usize) -> Self {
        Self { theta, dim: head_dim, interleaved: false, scaling: RopeScaling::None, attention_factor: 1.0 }
    }

    /// Radians per position of each of the `dim / 2` pairs, where contexts of `context_length` are served.
    ///
    /// The formulas are those of transformers (`modeling_rope_utils.py`), evaluated in f64 and rounded once.
    #[must_use]
    pub fn inv_freq(&self, context_length: usize) -> Vec<f32> {
        let theta = f64::from(self.theta);
        let scale = self.scaling.frequencies(theta, self.dim, context_length);
        (0..self.dim / 2).map(|pair| scale(pair, theta.powf(-2.0 * pair as f64 / self.dim as f64)) as f32).collect()
    }

    /// Cosines and sines of every position and pair, times the attention factor, for contexts of `context_length`.
    #[must_use]
    pub fn tables(&self, context_length: usize) -> RotaryTables {
        let frequencies = self.inv_freq(context_length);
        let angles = (0..context_length).flat_map(|p| frequencies.iter().map(move |&f| p as f32 * f));
        let factor = self.attention_factor;
        let (cos, sin) = angles.map(|a| (factor * a.cos(), factor * a.sin())).unzip();
        RotaryTables { cos, sin, dim: self.dim, interleaved: self.interleaved }
    }

    pub(crate) fn check(&self, head_dim: usize, file: &str) -> Result<(), ConfigError> {
        let wrong = |field: &str, found: String, expected: &str| {
            let (file, field, expected) = (file.to_owned(), field.to_owned(), expected.to_owned());
            Err(ConfigError::Wrong { file, field, found, expected })
        };
        let positive = |x: f32| x.is_finite() && x > 0.0;
        if !positive(self.theta) {
            return wrong("rope theta", self.theta.to_string(), "a positive number");
        }
        if self.dim > head_dim || !self.dim.is_multiple_of(2) {
            return wrong("rotary dimension", self.dim.to_string(), &format!("an even number up to {head_dim}"));
        }
        if !positive(self.attention_factor) {
            return wrong("rope attention_factor", self.attention_factor.to_string(), "a positive number");
        }
        let pairs = self.dim / 2;
        let divisors = |field: &str, divisors: &[f32]| {
            if divisors.len() != pairs {
                let expected = format!("{pairs} values, one for each pair of a head");
                return wrong(field, format!("{} values long", divisors.len()), &expected);
            }
            match divisors.iter().find(|d| !positive(**d)) {
                Some(bad) => wrong(field, format!("holding {bad}"), "positive numbers only"),
                None => Ok(()),
            }
        };
        let shown = || format!("{:?}", self.scaling);
        match &self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear(factor) if positive(*factor) => Ok(()),
            RopeScaling::Llama3 { high_freq_factor, low_freq_factor, .. }
                if !(high_freq_factor.is_finite() && high_freq_factor > low_freq_factor) =>
            {
                wrong("rope high_freq_factor", high_freq_factor.to_string(), "a number above low_freq_factor")
            }
            RopeScaling::Llama3 { factor, low_freq_factor, original_context, .. }
                if positive(*factor) && positive(*low_freq_factor) && *original_context > 0 =>
            {
                Ok(())
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, .. }
                if positive(*factor) && positive(*beta_fast) && positive(*beta_slow) && *original_context > 0 =>
            {
                Ok(())
            }
            RopeScaling::Linear(_) | RopeScaling::Llama3 { .. } | RopeScaling::Yarn { .. } => {
                wrong("rope scaling", shown(), "positive factors and context")
            }
            RopeScaling::LongRope { short, long, original_context } => {
                if *original_context == 0 {
                    return wrong("rope original_max_position_embeddings", "0".to_owned(), "a positive number");
                }
                divisors("rope short_factor", short)?;
                divisors("rope long_factor", long)
            }
            RopeScaling::Divisors(values) => divisors("rope_freqs.weight", values),
            RopeScaling::Proportional(turned) if *turned <= pairs => Ok(()),
            RopeScaling::Proportional(turned) => {
                wrong("partial_rotary_factor", format!("{turned} pairs"), &format!("at most {pairs} pairs"))
            }
        }
    }
}

/// From a pair and its unscaled frequency to its frequency.
type Frequencies<'a> = Box<dyn Fn(usize, f64) -> f64 + 'a>;

impl RopeScaling {
    fn frequencies(&self, theta: f64, dim: usize, context_length: usize) -> Frequencies<'_> {
        let divided = |divisors: &'_ [f32]| -> Frequencies<'_> {
            let divisors = divisors.to_vec();
            Box::new(move |pair, plain| plain / divisors.get(pair).copied().map_or(1.0, f64::from))
        };
        match self {
            Self::None => Box::new(|_, plain| plain),
            Self::Linear(factor) => Box::new(move |_, plain| plain / f64::from(*factor)),
            Self::Divisors(divisors) => divided(divisors),
            Self::LongRope { short, long, original_context } => {
                divided(if context_length > *original_context { long } else { short })
            }
            Self::Proportional(turned) => Box::new(move |pair, plain| if pair < *turned { plain } else { 0.0 }),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let (factor, low, high) =
                    (f64::from(*factor), f64::from(*low_freq_factor), f64::from(*high_freq_factor));
                let context = *original_context as f64;
                Box::new(move |_, plain| {
                    let wavelength = 2.0 * PI / plain;
                    if wavelength > context / low {
                        plain / factor
                    } else if wavelength < context / high {
                        plain
                    } else {
                        let smooth = (context / wavelength - low) / (high - low);
                        (1.0 - smooth) * plain / factor + smooth * plain
                    }
                })
            }
            Self::Yarn { factor, beta_fast, beta_slow, truncate, original_context } => {
                // The pair that turns so often within the original context.
                let pair = |turns: f32| {
                    let wavelength = *original_context as f64 / (f64::from(turns) * 2.0 * PI);
                    dim as f64 * wavelength.ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (pair(*beta_fast), pair(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
                let width = if low == high { 0.001 } else { high - low };
                Box::new(move |pair, plain| {
                    let divided = ((pair as f64 - low) / width).clamp(0.0, 1.0);
                    plain / f64::from(*factor) * divided + plain * (1.0 - divided)
                })
            }
        }
    }
}

/// Default `attention_factor` of YaRN (`get_mscale`).
pub(crate) fn yarn_attention_factor(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

/// Default `attention_factor` of LongRoPE.
pub(crate) fn longrope_attention_factor(factor: f64, original_context: usize) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original_context as f64).ln()).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(theta: f32, head_dim: usize, scaling: RopeScaling) -> Rope {
        Rope { scaling, ..Rope::new(theta, head_dim) }
    }

    #[test]
    fn the_plain_series_starts_at_one_and_falls_by_theta() {
        assert_eq!(Rope::new(10_000.0, 4).inv_freq(64), [1.0, 0.01]);
        assert_eq!(Rope { dim: 2, ..Rope::new(10_000.0, 4) }.inv_freq(64), [1.0], "half of a head");
    }

    #[test]
    fn llama3_keeps_short_waves_divides_long_ones_and_blends_between() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64 };
        let plain = Rope::new(500_000.0, 16).inv_freq(64);
        let bent = with(500_000.0, 16, scaling).inv_freq(64);
        assert_eq!(bent[0], plain[0], "wavelength 6 of 64 / 4 is kept");
        assert_eq!(bent[7], plain[7] / 8.0, "the longest is divided");
        assert!(bent[1] < plain[1] && bent[1] > plain[1] / 8.0, "wavelength 32 lies between");
    }

    #[test]
    fn yarn_keeps_pairs_that_turn_often_and_divides_those_that_do_not() {
        let scaling =
            RopeScaling::Yarn { factor: 4.0, beta_fast: 32.0, beta_slow: 1.0, truncate: true, original_context: 4096 };
        let (plain, bent) = (Rope::new(10_000.0, 64).inv_freq(64), with(10_000.0, 64, scaling).inv_freq(64));
        assert_eq!((bent[0], bent[31]), (plain[0], plain[31] / 4.0));
        assert!(bent[16] < plain[16] && bent[16] > plain[16] / 4.0);
    }

    #[test]
    fn longrope_divides_by_the_factors_of_the_served_context() {
        let (short, long) = (vec![1.0, 2.0], vec![1.0, 8.0]);
        let rope = with(10_000.0, 4, RopeScaling::LongRope { short, long, original_context: 64 });
        assert_eq!((rope.inv_freq(64), rope.inv_freq(65)), (vec![1.0, 0.005], vec![1.0, 0.00125]));
    }

    #[test]
    fn divisors_apply_pair_by_pair() {
        assert_eq!(with(10_000.0, 4, RopeScaling::Divisors(vec![1.0, 2.0])).inv_freq(64), [1.0, 0.005]);
        assert_eq!(with(10_000.0, 4, RopeScaling::Linear(2.0)).inv_freq(64), [0.5, 0.005]);
        assert_eq!(with(10_000.0, 4, RopeScaling::Proportional(1)).inv_freq(64), [1.0, 0.0]);
    }

    #[test]
    fn a_wrong_number_of_divisors_is_named() {
        let rope = with(10_000.0, 8, RopeScaling::Divisors(vec![1.0]));
        let message = rope.check(8, "m.gguf").unwrap_err().to_string();
        assert!(message.contains("rope_freqs.weight") && message.contains("4 values"), "{message}");
    }
}

//! Rotary position embedding: rotation angles of each pair of a head by position.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::config_error::ConfigError;

/// Rotary embedding of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the geometric series of frequencies.
    pub theta: f32,
    /// Scaling of the frequencies for longer contexts.
    pub scaling: RopeScaling,
}

/// Ways to extend the frequencies beyond the trained context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, with a smooth transition.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f32,
        /// Wavelengths beyond `original_context / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Original context in positions.
        original_context: usize,
    },
    /// One divisor for each pair, as in GGUF's tensor `rope_freqs.weight`.
    Divisors(Vec<f32>),
}

impl Rope {
    /// Radians per position of each of the `head_dim / 2` pairs.
    ///
    /// The formulas are those of transformers (`_compute_default_rope_parameters`, `_compute_llama3_parameters`),
    /// evaluated in f64 and rounded once.
    #[must_use]
    pub fn inv_freq(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|pair| {
                let plain = f64::from(self.theta).powf(-2.0 * pair as f64 / head_dim as f64);
                self.scaling.apply(pair, plain) as f32
            })
            .collect()
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
        match &self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                if !(positive(*factor) && positive(*low_freq_factor) && *original_context > 0) {
                    return wrong("rope scaling", format!("{:?}", self.scaling), "positive factors and context");
                }
                if !(high_freq_factor.is_finite() && high_freq_factor > low_freq_factor) {
                    let found = high_freq_factor.to_string();
                    return wrong("rope high_freq_factor", found, "a number above low_freq_factor");
                }
                Ok(())
            }
            RopeScaling::Divisors(divisors) => {
                if divisors.len() != head_dim / 2 {
                    let expected = format!("{} values, one for each pair of a head", head_dim / 2);
                    return wrong("rope_freqs.weight", format!("{} values long", divisors.len()), &expected);
                }
                match divisors.iter().find(|d| !positive(**d)) {
                    Some(bad) => wrong("rope_freqs.weight", format!("holding {bad}"), "positive numbers only"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl RopeScaling {
    fn apply(&self, pair: usize, plain: f64) -> f64 {
        match self {
            Self::None => plain,
            Self::Divisors(divisors) => plain / divisors.get(pair).copied().map_or(1.0, f64::from),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let (factor, low, high) =
                    (f64::from(*factor), f64::from(*low_freq_factor), f64::from(*high_freq_factor));
                let context = *original_context as f64;
                let wavelength = 2.0 * PI / plain;
                if wavelength > context / low {
                    plain / factor
                } else if wavelength < context / high {
                    plain
                } else {
                    let smooth = (context / wavelength - low) / (high - low);
                    (1.0 - smooth) * plain / factor + smooth * plain
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_series_starts_at_one_and_falls_by_theta() {
        let rope = Rope { theta: 10_000.0, scaling: RopeScaling::None };
        assert_eq!(rope.inv_freq(4), [1.0, 0.01]);
    }

    #[test]
    fn llama3_keeps_short_waves_divides_long_ones_and_blends_between() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64 };
        let plain = Rope { theta: 500_000.0, scaling: RopeScaling::None }.inv_freq(16);
        let bent = Rope { theta: 500_000.0, scaling }.inv_freq(16);
        assert_eq!(bent[0], plain[0], "wavelength 6 of 64 / 4 is kept");
        assert_eq!(bent[7], plain[7] / 8.0, "the longest is divided");
        assert!(bent[1] < plain[1] && bent[1] > plain[1] / 8.0, "wavelength 32 lies between");
    }

    #[test]
    fn divisors_apply_pair_by_pair() {
        let rope = Rope { theta: 10_000.0, scaling: RopeScaling::Divisors(vec![1.0, 2.0]) };
        assert_eq!(rope.inv_freq(4), [1.0, 0.005]);
    }

    #[test]
    fn a_wrong_number_of_divisors_is_named() {
        let rope = Rope { theta: 10_000.0, scaling: RopeScaling::Divisors(vec![1.0]) };
        let message = rope.check(8, "m.gguf").unwrap_err().to_string();
        assert!(message.contains("rope_freqs.weight") && message.contains("4 values"), "{message}");
    }
}

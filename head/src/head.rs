//! What a head says of a vector.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use slm_kernels::{Level, rowwise::dots};

/// A head for vectors of one encoder. Matrices are row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub(crate) encoder: Encoder,
    pub(crate) labels: Vec<Label>,
    pub(crate) linear: Linear,
    pub(crate) spread: Spread,
    pub(crate) calibration: Calibration,
    pub(crate) training: Training,
}

/// The encoder whose vectors a head was trained on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// Name of the SlmModel or LoraAdapter, for people.
    pub name: String,
    /// Digest of the model.
    pub model: String,
    /// Digest of the adapter's files, if an adapter changes the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Numbers of a vector.
    pub width: usize,
}

/// A label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// The expert for texts with this label.
    pub expert: String,
}

/// Logits of labels: `weight · x + bias`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linear {
    /// `[labels, width]`.
    pub(crate) weight: Vec<f32>,
    /// `[labels]`.
    pub(crate) bias: Vec<f32>,
}

/// Squared Mahalanobis distances to the means of labels: `|whitening · x - mean|²`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spread {
    /// `[width, width]`, lower triangular.
    pub(crate) whitening: Vec<f32>,
    /// `[labels, width]`, whitened.
    pub(crate) means: Vec<f32>,
}

/// What numbers mean, from texts that were held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Calibration {
    /// Logits are divided by it before the softmax.
    pub(crate) temperature: f32,
    /// Distances to the nearest mean.
    pub(crate) distance: Measure,
    /// Energies: `-ln Σ exp(logit)`.
    pub(crate) energy: Measure,
    /// Quantiles of nonconformity, at equal shares, in ascending order.
    pub(crate) nonconformity: Vec<f32>,
    /// Number of texts that were held out.
    pub(crate) texts: usize,
}

/// Mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measure {
    pub(crate) mean: f32,
    pub(crate) deviation: f32,
}

/// How a head was trained, for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Training {
    /// `sha256:…` of the file with the texts.
    pub data: String,
    /// Texts with a label that were used.
    pub texts: usize,
    /// Parts of which each was held out once.
    pub folds: usize,
    /// Share of held-out texts that got their label.
    pub label_accuracy: f64,
    /// Share of held-out texts whose label belongs to their expert.
    pub expert_accuracy: f64,
}

/// What a head says of a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// A probability for each label.
    pub probabilities: Vec<f32>,
    /// Share of held-out texts in scope that were no more typical: a conformal p-value, in (0, 1]. Of the texts that are like
    /// those of the training, a share of about `t` has a typicality up to `t`.
    pub typicality: f32,
}

/// Outputs of the two parts.
pub(crate) struct Outputs {
    pub(crate) logits: Vec<f32>,
    /// `-ln Σ exp(logit)`.
    pub(crate) energy: f32,
    /// To the nearest mean.
    pub(crate) distance: f32,
}

impl Head {
    /// The encoder that it is for.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Labels, in the order of probabilities.
    #[must_use]
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// How it was trained.
    #[must_use]
    pub fn training(&self) -> &Training {
        &self.training
    }

    /// Classifies a vector of any length; its direction counts.
    ///
    /// # Panics
    /// The vector has another width than those of the encoder.
    #[must_use]
    pub fn classify(&self, vector: &[f32]) -> Classified {
        assert_eq!(vector.len(), self.encoder.width, "a vector of another encoder");
        let outputs = outputs(&self.linear, &self.spread, &unit(vector));
        let nonconformity = self.calibration.nonconformity_of(&outputs);
        Classified {
            probabilities: softmax(&outputs.logits, self.calibration.temperature),
            typicality: self.calibration.typicality(nonconformity),
        }
    }
}

/// What both parts say of a vector of length one.
pub(crate) fn outputs(linear: &Linear, spread: &Spread, vector: &[f32]) -> Outputs {
    let level = Level::best();
    let labels = linear.bias.len();
    let mut logits = vec![0.0; labels];
    dots(level, &linear.weight, vector, &mut logits);
    logits.iter_mut().zip(&linear.bias).for_each(|(logit, bias)| *logit += bias);
    let mut white = vec![0.0; vector.len()];
    dots(level, &spread.whitening, vector, &mut white);
    let distance = spread
        .means
        .chunks_exact(vector.len())
        .map(|mean| mean.iter().zip(&white).map(|(a, b)| (a - b) * (a - b)).sum())
        .fold(f32::INFINITY, f32::min);
    let energy = -log_sum_exp(&logits);
    Outputs { logits, energy, distance }
}

impl Calibration {
    /// How little a text is like those of the training; both parts count alike.
    pub(crate) fn nonconformity_of(&self, outputs: &Outputs) -> f32 {
        self.distance.standard(outputs.distance) + self.energy.standard(outputs.energy)
    }

    /// The share of held-out texts that conform no more, by their quantiles.
    fn typicality(&self, nonconformity: f32) -> f32 {
        let known = &self.nonconformity;
        let above = known.len() - known.partition_point(|known| *known < nonconformity);
        #[allow(clippy::cast_precision_loss)] // At most a thousand.
        let share = above as f32 / known.len() as f32;
        #[allow(clippy::cast_precision_loss)] // A count of texts.
        let texts = self.texts as f32;
        (share * texts + 1.0) / (texts + 1.0)
    }
}

impl Measure {
    /// That of `values`, of which there is at least one.
    pub(crate) fn of(values: impl Iterator<Item = f32> + Clone) -> Self {
        let count = values.clone().count().max(1) as f64;
        let mean = values.clone().map(f64::from).sum::<f64>() / count;
        let variance = values.map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        // Values that are all alike say nothing.
        let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
        Self { mean: mean as f32, deviation: deviation as f32 }
    }

    fn standard(self, value: f32) -> f32 {
        (value - self.mean) / self.deviation
    }
}

/// The vector at length one; zeros stay.
pub(crate) fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    vector.iter().map(|x| (f64::from(*x) / length) as f32).collect()
}

pub(crate) fn softmax(logits: &[f32], temperature: f32) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut shares: Vec<f32> = logits.iter().map(|logit| ((logit - largest) / temperature).exp()).collect();
    let sum: f32 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}

pub(crate) fn log_sum_exp(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f32>().ln()
}

/// The place of the largest; the first of equals.
pub(crate) fn largest(values: &[f32]) -> usize {
    (0..values.len()).fold(0, |best, place| if values[place] > values[best] { place } else { best })
}

/// The row of that index.
pub(crate) fn row(index: usize, width: usize) -> Range<usize> {
    index * width..(index + 1) * width
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two labels in a plane: one along each axis.
    fn head() -> Head {
        let label = |name: &str| Label { name: name.to_owned(), expert: format!("{name}-expert") };
        Head {
            encoder: Encoder { width: 2, ..Encoder::default() },
            labels: vec![label("x"), label("y")],
            linear: Linear { weight: vec![2.0, 0.0, 0.0, 2.0], bias: vec![0.0, 0.0] },
            spread: Spread { whitening: vec![2.0, 0.0, 0.0, 2.0], means: vec![2.0, 0.0, 0.0, 2.0] },
            calibration: Calibration {
                temperature: 2.0,
                distance: Measure { mean: 0.0, deviation: 4.0 },
                energy: Measure { mean: 0.0, deviation: 1e9 },
                nonconformity: vec![0.0, 0.5, 1.0, 1.5],
                texts: 99,
            },
            training: Training::default(),
        }
    }

    #[test]
    fn a_vector_is_read_by_its_direction() {
        let found = head().classify(&[30.0, 0.0]);
        let share = 1.0 / (1.0 + (-1.0_f32).exp());
        assert!((found.probabilities[0] - share).abs() < 1e-6 && (found.probabilities[1] - 1.0 + share).abs() < 1e-6);
        assert_eq!(found, head().classify(&[1.0, 0.0]));
        assert!(found.typicality > 0.74, "{found:?}");
    }

    #[test]
    fn typicality_is_the_share_of_held_out_texts_that_conform_no_more() {
        // At 45 degrees the distance to both means is 4 (2 - sqrt 2) = 2.34, whose measure is 0.586: half of the known are above.
        let typicality = |x: f32, y: f32| head().classify(&[x, y]).typicality;
        assert!((typicality(1.0, 1.0) - 0.505).abs() < 1e-6, "{}", typicality(1.0, 1.0));
        // Opposite to both: 4 (2 + sqrt 2) = 13.7, more than any. A share of nothing is not what 99 texts can show.
        assert!((typicality(-1.0, -1.0) - 0.01).abs() < 1e-6);
        assert!((typicality(0.0, 3.0) - 1.0).abs() < 0.3);
    }
}

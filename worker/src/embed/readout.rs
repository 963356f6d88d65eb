//! What the states of a text's tokens become: a vector, or a score for each label.

use slm_convert::{
    classifier::{Classifier, Scores},
    dense::{Dense, DenseActivation},
    embedding::{EmbeddingSettings, Pooling},
};
use slm_kernels::{
    Level,
    rowwise::{self, Activation},
};

/// How results are made of states. A kind of result of the model, or of an adapter with a head of its own.
#[derive(Debug, Clone)]
pub(crate) struct Readout {
    pooling: Pooling,
    layers: Vec<Dense>,
    end: End,
}

/// What is done to the last layer's result.
#[derive(Debug, Clone, Copy)]
enum End {
    /// A vector, of length one if it is normalised.
    Vector { normalize: bool },
    /// Scores of labels.
    Scores(Scores),
}

impl From<&EmbeddingSettings> for Readout {
    fn from(settings: &EmbeddingSettings) -> Self {
        let EmbeddingSettings { pooling, layers, normalize, .. } = settings;
        Self { pooling: *pooling, layers: layers.clone(), end: End::Vector { normalize: *normalize } }
    }
}

impl From<&Classifier> for Readout {
    fn from(head: &Classifier) -> Self {
        Self { pooling: head.pooling, layers: head.layers.clone(), end: End::Scores(head.scores) }
    }
}

impl Readout {
    /// Numbers of a whole result, of states of `hidden` numbers.
    pub(crate) fn width(&self, hidden: usize) -> usize {
        self.layers.last().map_or(hidden, |layer| layer.outputs)
    }

    /// The result for a text whose tokens have `states`, rows of `hidden`; a vector is cut to `dimensions`.
    pub(super) fn read(&self, level: Level, states: &[f32], hidden: usize, dimensions: usize) -> Vec<f32> {
        let pooled = pooled(self.pooling, states, hidden);
        let mut result = self.layers.iter().fold(pooled, |x, layer| dense(level, layer, &x));
        match self.end {
            End::Vector { normalize: normal } => {
                if normal {
                    normalize(&mut result);
                }
                if dimensions < result.len() {
                    result.truncate(dimensions);
                    if normal {
                        normalize(&mut result);
                    }
                }
            }
            End::Scores(Scores::Identity) => {}
            End::Scores(Scores::Sigmoid) => result.iter_mut().for_each(|x| *x = sigmoid(*x)),
            End::Scores(Scores::Softmax) => softmax(&mut result),
        }
        result
    }
}

fn dense(level: Level, layer: &Dense, x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; layer.outputs];
    rowwise::dots(level, &layer.weight, x, &mut out);
    out.iter_mut().zip(&layer.bias).for_each(|(x, bias)| *x += bias);
    let out = activated(level, layer.activation, out);
    let Some(norm) = &layer.norm else { return out };
    let mut normed = vec![0.0; out.len()];
    rowwise::layer_norm(level, &out, &norm.gain, &norm.bias, norm.epsilon, &mut normed);
    normed
}

fn activated(level: Level, activation: DenseActivation, mut x: Vec<f32>) -> Vec<f32> {
    let block = match activation {
        DenseActivation::Identity => return x,
        DenseActivation::Tanh => {
            x.iter_mut().for_each(|x| *x = x.tanh());
            return x;
        }
        DenseActivation::Relu => {
            x.iter_mut().for_each(|x| *x = x.max(0.0));
            return x;
        }
        DenseActivation::Sigmoid => {
            x.iter_mut().for_each(|x| *x = sigmoid(*x));
            return x;
        }
        DenseActivation::Gelu => Activation::Gelu,
        DenseActivation::GeluTanh => Activation::GeluTanh,
        DenseActivation::Silu => Activation::Silu,
    };
    let mut out = vec![0.0; x.len()];
    rowwise::activated(level, block, &x, &mut out);
    out
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn softmax(x: &mut [f32]) {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

fn pooled(pooling: Pooling, states: &[f32], width: usize) -> Vec<f32> {
    let rows = || states.chunks_exact(width);
    let tokens = rows().len() as f32;
    let sum = |weight: fn(usize) -> f32, divisor: f32| {
        let mut sum = vec![0.0; width];
        for (index, row) in rows().enumerate() {
            let weight = weight(index);
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
        }
        sum.iter_mut().for_each(|sum: &mut f32| *sum /= divisor);
        sum
    };
    match pooling {
        Pooling::Mean => sum(|_| 1.0, tokens),
        Pooling::MeanSqrt => sum(|_| 1.0, tokens.sqrt()),
        Pooling::WeightedMean => sum(|index| (index + 1) as f32, tokens * (tokens + 1.0) / 2.0),
        Pooling::Max => {
            let mut largest = vec![f32::NEG_INFINITY; width];
            rows().for_each(|row| largest.iter_mut().zip(row).for_each(|(largest, x)| *largest = x.max(*largest)));
            largest
        }
        Pooling::First => rows().next().unwrap_or_default().to_vec(),
        Pooling::Last => rows().next_back().unwrap_or_default().to_vec(),
    }
}

/// Makes the length one; a vector of zeros stays.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    // The bound of PyTorch's `normalize`.
    let length = length.max(1e-12) as f32;
    vector.iter_mut().for_each(|x| *x /= length);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [f32; 6] = [1.0, -4.0, 2.0, 0.0, 6.0, 1.0];

    fn readout(pooling: Pooling, normalize: bool) -> Readout {
        Readout { pooling, layers: Vec::new(), end: End::Vector { normalize } }
    }

    fn vector(readout: &Readout, states: &[f32], hidden: usize, dimensions: usize) -> Vec<f32> {
        readout.read(Level::best(), states, hidden, dimensions)
    }

    #[track_caller]
    fn assert_close(got: &[f32], want: &[f32]) {
        let close = got.len() == want.len() && got.iter().zip(want).all(|(x, y)| (x - y).abs() < 1e-6);
        assert!(close, "{got:?} and {want:?}");
    }

    #[test]
    fn each_pooling_is_its_formula() {
        for (pooling, expected) in [
            (Pooling::Mean, [3.0, -1.0]),
            (Pooling::MeanSqrt, [9.0 / 3f32.sqrt(), -3.0 / 3f32.sqrt()]),
            (Pooling::WeightedMean, [23.0 / 6.0, -1.0 / 6.0]),
            (Pooling::Max, [6.0, 1.0]),
            (Pooling::First, [1.0, -4.0]),
            (Pooling::Last, [6.0, 1.0]),
        ] {
            assert_close(&vector(&readout(pooling, false), &STATES, 2, 2), &expected);
        }
    }

    #[test]
    fn a_cut_vector_has_the_length_of_a_whole_one() {
        let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        let cut = vector(&readout(Pooling::Mean, true), &STATES, 3, 2);
        assert_eq!((cut.len(), (length(&cut) * 1e6).round()), (2, 1e6));
        assert_eq!(vector(&readout(Pooling::First, false), &STATES, 3, 1), [1.0], "as it is");
        assert_eq!(vector(&readout(Pooling::Mean, true), &[0.0; 4], 2, 2), [0.0; 2]);
    }

    #[test]
    fn layers_and_scores_are_their_formulas() {
        let layer = |activation| Dense {
            inputs: 2,
            outputs: 2,
            weight: vec![1.0, 0.0, -1.0, 1.0],
            bias: vec![0.5, 0.0],
            activation,
            norm: None,
        };
        // The first state is (1, -4): the layer gives (1.5, -5).
        let of = |activation, end| {
            let readout = Readout { pooling: Pooling::First, layers: vec![layer(activation)], end };
            vector(&readout, &STATES, 2, 2)
        };
        let plain = End::Vector { normalize: false };
        assert_close(&of(DenseActivation::Identity, plain), &[1.5, -5.0]);
        assert_close(&of(DenseActivation::Relu, plain), &[1.5, 0.0]);
        assert_close(&of(DenseActivation::Tanh, plain), &[1.5_f32.tanh(), (-5.0_f32).tanh()]);
        assert_close(&of(DenseActivation::Silu, plain), &[1.5 * sigmoid(1.5), -5.0 * sigmoid(-5.0)]);
        let scores = |scores| of(DenseActivation::Identity, End::Scores(scores));
        assert_close(&scores(Scores::Identity), &[1.5, -5.0]);
        assert_close(&scores(Scores::Sigmoid), &[sigmoid(1.5), sigmoid(-5.0)]);
        assert_close(&scores(Scores::Softmax), &[sigmoid(6.5), sigmoid(-6.5)]);
    }
}

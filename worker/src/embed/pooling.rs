//! One vector of the states of a text's tokens.

use slm_convert::embedding::{EmbeddingSettings, Pooling};

/// The vector of a text whose tokens have `states`, rows of `width`, cut to `dimensions`.
pub(super) fn vector(settings: &EmbeddingSettings, states: &[f32], width: usize, dimensions: usize) -> Vec<f32> {
    let mut vector = pooled(settings.pooling, states, width);
    if settings.normalize {
        normalize(&mut vector);
    }
    if dimensions < vector.len() {
        vector.truncate(dimensions);
        if settings.normalize {
            normalize(&mut vector);
        }
    }
    vector
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

    fn settings(pooling: Pooling, normalize: bool) -> EmbeddingSettings {
        EmbeddingSettings { pooling, normalize, ..EmbeddingSettings::default() }
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
            let vector = vector(&settings(pooling, false), &STATES, 2, 2);
            assert!(vector.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6), "{pooling:?}: {vector:?}");
        }
    }

    #[test]
    fn a_cut_vector_has_the_length_of_a_whole_one() {
        let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        let cut = vector(&settings(Pooling::Mean, true), &STATES, 3, 2);
        assert_eq!((cut.len(), (length(&cut) * 1e6).round()), (2, 1e6));
        assert_eq!(vector(&settings(Pooling::First, false), &STATES, 3, 1), [1.0], "as it is");
        assert_eq!(vector(&settings(Pooling::Mean, true), &[0.0; 4], 2, 2), [0.0; 2]);
    }
}

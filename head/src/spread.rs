//! Distances of vectors to the means of labels, by one covariance that all labels share.
//!
//! The covariance within labels is mixed with its mean variance ([`SHRINKAGE`]): directions in which training texts hardly differ
//! would count for too much otherwise. Rejection of texts out of scope depends on that; docs/decisions/26 has the figures.

use ndarray::ArrayView2;

use crate::head::{Spread, row};

/// Share of the mean variance in the covariance.
pub(crate) const SHRINKAGE: f64 = 0.7;

/// The spread of `vectors` (rows of `width`) around the means of their labels; every label has a vector. `None` for vectors that do
/// not differ at all.
pub(crate) fn fit(vectors: &[f32], width: usize, labels: &[usize], count: usize) -> Option<Spread> {
    let means = means(vectors, width, labels, count);
    let within = covariance(&centred(vectors, width, labels, &means), width);
    // Labels of one vector each have no covariance within them: that of all vectors is the best there is.
    let covariance = within.or_else(|| {
        let one = vec![0; labels.len()];
        self::covariance(&centred(vectors, width, &one, &self::means(vectors, width, &one, 1)), width)
    });
    let factor = cholesky(covariance?, width)?;
    let whitening = inverse(&factor, width);
    let whitened = means.chunks_exact(width).flat_map(|mean| {
        let white = |line: &[f64]| line.iter().zip(mean).map(|(a, b)| a * b).sum::<f64>() as f32;
        whitening.chunks_exact(width).map(white).collect::<Vec<_>>()
    });
    let means = whitened.collect();
    Some(Spread { whitening: whitening.iter().map(|x| *x as f32).collect(), means })
}

/// `[labels, width]`.
fn means(vectors: &[f32], width: usize, labels: &[usize], count: usize) -> Vec<f64> {
    let mut sums = vec![0.0; count * width];
    let mut members = vec![0_usize; count];
    for (vector, label) in vectors.chunks_exact(width).zip(labels) {
        members[*label] += 1;
        sums[row(*label, width)].iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    for (sums, members) in sums.chunks_exact_mut(width).zip(members) {
        sums.iter_mut().for_each(|sum| *sum /= members.max(1) as f64);
    }
    sums
}

/// The vectors without the means of their labels.
fn centred(vectors: &[f32], width: usize, labels: &[usize], means: &[f64]) -> Vec<f64> {
    let lines = vectors.chunks_exact(width).zip(labels);
    let centred = lines.flat_map(|(vector, label)| {
        vector.iter().zip(&means[row(*label, width)]).map(|(x, mean)| f64::from(*x) - mean)
    });
    centred.collect()
}

/// The shrunken covariance of centred rows. `None` if they do not differ.
fn covariance(centred: &[f64], width: usize) -> Option<Vec<f64>> {
    let rows = ArrayView2::from_shape((centred.len() / width, width), centred).ok()?;
    let mut covariance: Vec<f64> = (rows.t().dot(&rows) / rows.nrows() as f64).into_iter().collect();
    let mean_variance = (0..width).map(|index| covariance[index * width + index]).sum::<f64>() / width as f64;
    if !(mean_variance.is_finite() && mean_variance > 0.0) {
        return None;
    }
    covariance.iter_mut().for_each(|x| *x *= 1.0 - SHRINKAGE);
    (0..width).for_each(|index| covariance[index * width + index] += SHRINKAGE * mean_variance);
    Some(covariance)
}

/// The lower triangular factor of a positive definite matrix.
fn cholesky(mut matrix: Vec<f64>, width: usize) -> Option<Vec<f64>> {
    for line in 0..width {
        for column in 0..=line {
            let (upper, lower) = matrix.split_at_mut(line * width);
            let own = &mut lower[..width];
            let other = if column == line { None } else { Some(&upper[row(column, width)]) };
            let sum: f64 = match other {
                Some(other) => own[..column].iter().zip(other).map(|(a, b)| a * b).sum(),
                None => own[..column].iter().map(|a| a * a).sum(),
            };
            let rest = own[column] - sum;
            own[column] = match other {
                Some(other) => rest / other[column],
                None if rest > 0.0 => rest.sqrt(),
                None => return None,
            };
        }
        matrix[line * width + line + 1..(line + 1) * width].fill(0.0);
    }
    Some(matrix)
}

/// The inverse of a lower triangular matrix.
fn inverse(factor: &[f64], width: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; width * width];
    for line in 0..width {
        let (known, rest) = inverse.split_at_mut(line * width);
        let own = &mut rest[..width];
        for (other, known) in known.chunks_exact(width).enumerate() {
            let share = factor[line * width + other];
            own[..=other].iter_mut().zip(known).for_each(|(x, known)| *x -= share * known);
        }
        own[line] = 1.0;
        let diagonal = factor[line * width + line];
        own[..=line].iter_mut().for_each(|x| *x /= diagonal);
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_of_the_factor_is_an_inverse() {
        let matrix = vec![4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let factor = cholesky(matrix.clone(), 3).expect("positive definite");
        let inverse = inverse(&factor, 3);
        // inverse · matrix · inverseᵀ is the identity.
        let product = |a: &[f64], b: &[f64], transposed: bool| -> Vec<f64> {
            let b = |k: usize, j: usize| if transposed { b[j * 3 + k] } else { b[k * 3 + j] };
            (0..9).map(|at| (0..3).map(|k| a[at / 3 * 3 + k] * b(k, at % 3)).sum()).collect()
        };
        let identity = product(&product(&inverse, &matrix, false), &inverse, true);
        for (at, x) in identity.iter().enumerate() {
            assert!((x - f64::from(u8::from(at % 4 == 0))).abs() < 1e-12, "{identity:?}");
        }
        assert_eq!(cholesky(vec![1.0, 2.0, 2.0, 1.0], 2), None);
    }

    #[test]
    fn means_are_near_and_vectors_alike_have_no_spread() {
        let vectors = [1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9];
        let spread = fit(&vectors, 2, &[0, 0, 1, 1], 2).expect("a spread");
        let white = |x: [f32; 2]| -> Vec<f32> {
            spread.whitening.chunks_exact(2).map(|line| line[0] * x[0] + line[1] * x[1]).collect()
        };
        let mean = white([0.95, 0.05]);
        assert!(mean.iter().zip(&spread.means).all(|(a, b)| (a - b).abs() < 1e-5), "{spread:?}");
        assert_eq!(fit(&[1.0, 0.0, 1.0, 0.0], 2, &[0, 0], 1), None);
    }
}

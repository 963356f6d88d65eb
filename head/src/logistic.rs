//! Multinomial logistic regression with an L2 penalty, by L-BFGS.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::head::Linear;

/// Inverse of the penalty's strength, as scikit-learn's `C`: the penalty of weights is `|w|² / (2 C n)` beside the mean loss of `n` texts.
pub(crate) const C: f64 = 10.0;

/// Steps at most; weights hardly move after half of them.
const STEPS_MAX: usize = 100;
/// Steps whose change is remembered.
const MEMORY: usize = 10;
/// Relative decrease of the loss that is not worth another step.
const DECREASE_MIN: f64 = 1e-5;
/// Share of the decrease that the slope promises which a step has to bring (Armijo's condition).
const SUFFICIENT: f64 = 1e-4;
/// Halvings of a step at most.
const HALVINGS_MAX: usize = 30;

/// Weights of `count` labels for `vectors`, rows of `width`.
pub(crate) fn fit(vectors: &[f32], width: usize, labels: &[usize], count: usize) -> Linear {
    let Ok(texts) = ArrayView2::from_shape((labels.len(), width), vectors) else {
        return Linear { weight: vec![0.0; count * width], bias: vec![0.0; count] };
    };
    let problem = Problem { texts, labels, count, penalty: (1.0 / (C * labels.len().max(1) as f64)) as f32 };
    let weights = problem.solve();
    let (weight, bias) = weights.as_slice().unwrap_or_default().split_at(count * width);
    Linear { weight: weight.to_vec(), bias: bias.to_vec() }
}

struct Problem<'a> {
    texts: ArrayView2<'a, f32>,
    labels: &'a [usize],
    count: usize,
    penalty: f32,
}

/// A change of the weights and of the gradient with it.
struct Change {
    weights: Array1<f32>,
    gradient: Array1<f32>,
    /// The inverse of their product.
    scale: f32,
}

impl Problem<'_> {
    /// Weights `[count, width]`, then biases, all in one.
    fn solve(&self) -> Array1<f32> {
        let mut weights = Array1::zeros(self.count * (self.texts.ncols() + 1));
        let (mut loss, mut gradient) = self.loss(&weights);
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..STEPS_MAX {
            let direction = direction(&gradient, &changes);
            let slope = f64::from(gradient.dot(&direction));
            let first = 1.0 / gradient.dot(&gradient).sqrt().max(f32::MIN_POSITIVE);
            let mut step = if changes.is_empty() { first } else { 1.0 };
            let mut better = None;
            for _ in 0..HALVINGS_MAX {
                let tried = &weights - &(&direction * step);
                let (found, slopes) = self.loss(&tried);
                if found <= loss - SUFFICIENT * f64::from(step) * slope {
                    better = Some((tried, found, slopes));
                    break;
                }
                step /= 2.0;
            }
            let Some((next, found, slopes)) = better else { break };
            let change = (&next - &weights, &slopes - &gradient);
            let curvature = change.0.dot(&change.1);
            if curvature > 0.0 {
                changes.push(Change { weights: change.0, gradient: change.1, scale: 1.0 / curvature });
                if changes.len() > MEMORY {
                    changes.remove(0);
                }
            }
            let decrease = loss - found;
            (weights, loss, gradient) = (next, found, slopes);
            if decrease <= DECREASE_MIN * loss.abs() {
                break;
            }
        }
        weights
    }

    /// Mean loss with the penalty, and its gradient.
    fn loss(&self, weights: &Array1<f32>) -> (f64, Array1<f32>) {
        let (texts, width) = self.texts.dim();
        let both = weights.as_slice().unwrap_or_default();
        let (weight, bias) = both.split_at(self.count * width);
        let Ok(weight) = ArrayView2::from_shape((self.count, width), weight) else { return (0.0, weights.clone()) };
        let mut shares: Array2<f32> = self.texts.dot(&weight.t());
        let mut loss = 0.0;
        for (mut line, label) in shares.rows_mut().into_iter().zip(self.labels) {
            line.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
            let largest = line.fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let own = line[*label] - largest;
            line.mapv_inplace(|logit| (logit - largest).exp());
            let sum = line.sum();
            line.mapv_inplace(|share| share / sum);
            loss += f64::from(sum.ln() - own);
            line[*label] -= 1.0;
        }
        let texts = texts.max(1) as f32;
        let mut slopes = shares.t().dot(&self.texts) / texts;
        slopes.scaled_add(self.penalty, &weight);
        let penalty = f64::from(weight.iter().map(|x| x * x).sum::<f32>() * self.penalty / 2.0);
        let biases = shares.sum_axis(Axis(0)) / texts;
        let gradient = slopes.into_iter().chain(biases).collect();
        (loss / f64::from(texts) + penalty, gradient)
    }
}

/// The two loops of L-BFGS: the gradient by the inverse of the curvature that the last changes show.
fn direction(gradient: &Array1<f32>, changes: &[Change]) -> Array1<f32> {
    let mut direction = gradient.clone();
    let mut shares = Vec::with_capacity(changes.len());
    for Change { weights, gradient, scale } in changes.iter().rev() {
        let share = scale * weights.dot(&direction);
        direction.scaled_add(-share, gradient);
        shares.push(share);
    }
    if let Some(Change { gradient, scale, .. }) = changes.last() {
        direction /= scale * gradient.dot(gradient);
    }
    for (Change { weights, gradient, scale }, share) in changes.iter().zip(shares.into_iter().rev()) {
        let share = share - scale * gradient.dot(&direction);
        direction.scaled_add(share, weights);
    }
    direction
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::largest;

    /// Vectors of three labels around three directions, with some that overlap.
    fn texts() -> (Vec<f32>, Vec<usize>) {
        let labels: Vec<usize> = (0..90).map(|text| text % 3).collect();
        let vector = |(text, label): (usize, &usize)| {
            let angle = *label as f32 * 2.0 + (text as f32 * 0.7).sin() * 1.1;
            [angle.cos(), angle.sin()]
        };
        (labels.iter().enumerate().flat_map(vector).collect(), labels)
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let (vectors, labels) = texts();
        let rows = ArrayView2::from_shape((90, 2), &vectors).expect("rows");
        let problem = Problem { texts: rows, labels: &labels, count: 3, penalty: 0.01 };
        let weights: Array1<f32> = (0..9).map(|index| (index as f32 * 1.3).sin()).collect();
        let (_, gradient) = problem.loss(&weights);
        for index in 0..9 {
            let at = |change: f32| {
                let mut moved = weights.clone();
                moved[index] += change;
                problem.loss(&moved).0
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - f64::from(gradient[index])).abs() < 1e-4, "{index}: {slope} and {}", gradient[index]);
        }
    }

    #[test]
    fn it_ends_where_the_gradient_does() {
        let (vectors, labels) = texts();
        let rows = ArrayView2::from_shape((90, 2), &vectors).expect("rows");
        let problem = Problem { texts: rows, labels: &labels, count: 3, penalty: 0.01 };
        let (loss, gradient) = problem.loss(&problem.solve());
        assert!(gradient.dot(&gradient).sqrt() < 0.01 && loss < 0.7, "{loss} {gradient}");
        let linear = fit(&vectors, 2, &labels, 3);
        let logits = |x: &[f32]| -> Vec<f32> {
            let lines = linear.weight.chunks_exact(2).zip(&linear.bias);
            lines.map(|(line, bias)| line[0] * x[0] + line[1] * x[1] + bias).collect()
        };
        let right = vectors.chunks_exact(2).zip(&labels).filter(|(x, label)| largest(&logits(x)) == **label).count();
        assert!(right > 80, "{right} of 90");
    }
}

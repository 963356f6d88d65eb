//! Similarity of a text to the examples of a route's targets: cosines of their vectors. Pure.
//!
//! A target is as similar to a text as the mean of its most similar examples ([`NEAREST`] of them). Thresholds come from the
//! examples themselves: each is compared with the others, as if it were a request, and what the least similar share of them
//! reaches is what a request has to reach.

use std::fmt;

use slm_crds::route::{Similarity, Thresholds};

use super::{Scope, best};

/// Examples of a target that count, at most.
const NEAREST: usize = 3;

/// The vectors of a route's examples.
pub(crate) struct Examples {
    /// Rows of unit length, target by target.
    rows: Vec<Vec<f32>>,
    /// For each target, the row after its last.
    ends: Vec<usize>,
    thresholds: Thresholds,
}

/// Similarities of one text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Similar {
    /// A similarity for each target, in the route's order.
    pub(crate) scores: Vec<f32>,
    /// The place of the most similar target.
    pub(crate) best: usize,
    pub(crate) scope: Scope,
    pub(crate) thresholds: Thresholds,
}

/// Without the numbers.
impl fmt::Debug for Examples {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Thresholds { accept, out_of_scope } = self.thresholds;
        write!(
            formatter,
            "{} of {} targets, accepted from {accept:.3}, out of scope below {out_of_scope:.3}",
            self.rows.len(),
            self.ends.len()
        )
    }
}

impl Examples {
    /// `vectors` are those of each target's examples, of unit length; every target has two at least.
    pub(crate) fn new(vectors: Vec<Vec<Vec<f32>>>, similarity: &Similarity) -> Self {
        let mut examples = Self {
            ends: vectors
                .iter()
                .scan(0, |end, target| {
                    *end += target.len();
                    Some(*end)
                })
                .collect(),
            rows: vectors.into_iter().flatten().collect(),
            thresholds: Thresholds { accept: -1.0, out_of_scope: -1.0 },
        };
        examples.thresholds =
            similarity.thresholds.clone().unwrap_or_else(|| examples.computed(similarity.false_rejections));
        examples
    }

    /// Multiplications of one comparison.
    pub(crate) fn cost(&self) -> usize {
        self.rows.len() * self.rows.first().map_or(0, Vec::len)
    }

    /// Compares a vector of unit length.
    pub(crate) fn compare(&self, vector: &[f32]) -> Similar {
        let cosines: Vec<f32> = self.rows.iter().map(|row| dot(row, vector)).collect();
        let scores = self.scores(&cosines, None);
        let best = best(&scores);
        let scope = Scope::of(f64::from(scores[best]), &self.thresholds);
        Similar { scores, best, scope, thresholds: self.thresholds.clone() }
    }

    /// The score of each target; the row `without` does not count.
    fn scores(&self, cosines: &[f32], without: Option<usize>) -> Vec<f32> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins
            .zip(&self.ends)
            .map(|(begin, end)| {
                let others = (begin..*end).filter(|row| Some(*row) != without);
                mean_of_nearest(others.map(|row| cosines[row]))
            })
            .collect()
    }

    /// Thresholds that call `share` of the examples out of scope, and twice as many unsure at most.
    fn computed(&self, share: f64) -> Thresholds {
        let mut reached: Vec<f32> = (0..self.rows.len())
            .map(|row| {
                let cosines: Vec<f32> = self.rows.iter().map(|other| dot(other, &self.rows[row])).collect();
                let scores = self.scores(&cosines, Some(row));
                scores[best(&scores)]
            })
            .collect();
        reached.sort_by(f32::total_cmp);
        let at = |share: f64| f64::from(quantile(&reached, share));
        Thresholds { accept: at(2.0 * share), out_of_scope: at(share) }
    }
}

/// The value below which `share` of the sorted values are; the least for a share of nothing.
fn quantile(sorted: &[f32], share: f64) -> f32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    // A place among few.
    let place = (share * sorted.len() as f64) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(-1.0)
}

fn mean_of_nearest(cosines: impl Iterator<Item = f32>) -> f32 {
    let mut nearest = [f32::NEG_INFINITY; NEAREST];
    let mut count = 0;
    for cosine in cosines {
        count += 1;
        let mut next = cosine;
        for place in &mut nearest {
            if next > *place {
                std::mem::swap(place, &mut next);
            }
        }
    }
    #[allow(clippy::cast_precision_loss)] // At most a few.
    match count.min(NEAREST) {
        0 => -1.0,
        some => nearest[..some].iter().sum::<f32>() / some as f32,
    }
}

/// In eight sums, which the compiler keeps in one register.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    let (chunks_a, chunks_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = chunks_a.remainder().iter().zip(chunks_b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in chunks_a.zip(chunks_b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// The vector at length one; `None` for one that has no direction.
pub(crate) fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = dot(&vector, &vector).sqrt();
    if !length.is_finite() || length <= f32::MIN_POSITIVE {
        return None;
    }
    for value in &mut vector {
        *value /= length;
    }
    Some(vector)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn similarity(more: &serde_json::Value) -> Similarity {
        let mut spec = json!({ "encoder": { "kind": "SlmModel", "name": "e" }, "targets": [] });
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        serde_json::from_value(spec).expect("a similarity")
    }

    /// A vector at that angle in degrees, in the plane of the first two of nine dimensions.
    fn at(angle: f32) -> Vec<f32> {
        let mut vector = vec![0.0; 9];
        (vector[0], vector[8]) = (angle.to_radians().cos(), angle.to_radians().sin());
        vector
    }

    fn examples(more: &serde_json::Value) -> Examples {
        let of = |angles: &[f32]| angles.iter().map(|angle| at(*angle)).collect::<Vec<_>>();
        Examples::new(vec![of(&[0.0, 2.0, 4.0, 60.0]), of(&[90.0, 92.0])], &similarity(more))
    }

    #[test]
    fn the_nearest_examples_count() {
        let similar = examples(&json!({})).compare(&at(2.0));
        let cosine = |angle: f32| angle.to_radians().cos();
        let expected = [(cosine(2.0) + 1.0 + cosine(2.0)) / 3.0, (cosine(88.0) + cosine(90.0)) / 2.0];
        assert_eq!(similar.best, 0);
        for (found, expected) in similar.scores.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(examples(&json!({})).compare(&at(91.0)).best, 1);
    }

    #[test]
    fn thresholds_are_the_manifests_or_of_the_examples() {
        let given = examples(&json!({ "thresholds": { "accept": 0.9, "outOfScope": 0.5 } }));
        let scope = |examples: &Examples, angle| examples.compare(&at(angle)).scope;
        assert_eq!([2.0, 30.0, -70.0].map(|angle| scope(&given, angle)), [Scope::In, Scope::Unsure, Scope::Out]);
        // The example at 60 degrees is the one that is not like the others.
        let computed = examples(&json!({ "falseRejections": 0.2 }));
        assert_eq!([2.0, -80.0, 180.0].map(|angle| scope(&computed, angle)), [Scope::In, Scope::Out, Scope::Out]);
        // With none to reject, nothing that is as near as the least near example is out of scope.
        let lenient = examples(&json!({ "falseRejections": 0.0 }));
        assert_eq!(scope(&lenient, 60.0), Scope::In);
        assert!(lenient.thresholds.accept <= computed.thresholds.accept);
    }

    #[test]
    fn what_has_no_direction_is_no_vector() {
        assert_eq!(unit(vec![3.0, 4.0]), Some(vec![0.6, 0.8]));
        for vector in [vec![], vec![0.0, 0.0], vec![f32::NAN, 1.0], vec![f32::INFINITY]] {
            assert_eq!(unit(vector), None);
        }
    }
}

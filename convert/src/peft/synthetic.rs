//! An adapter that nobody trained, to check a backend with.

use super::{Adapter, LoraPair, Matrix, target_modules};
use crate::architecture::{Architecture, Linear};

/// Bound on the values of B: changes logits by much more than rounding does.
const B_MAX: f32 = 0.2;

impl Adapter {
    /// An adapter of rank `rank` on all linear layers of `base`, with pseudo-random values: the same for the same shapes.
    #[must_use]
    pub fn synthetic(base: &Architecture, rank: usize) -> Self {
        let mut numbers = Numbers(0x5eed);
        let pairs: std::collections::BTreeMap<_, _> =
            base.linears().map(|(place, linear)| (place, pair(linear, rank, &mut numbers))).collect();
        Self {
            digest: "synthetic".to_owned(),
            rank_max: rank,
            target_modules: target_modules(base, pairs.keys().copied()),
            pairs,
            notes: Vec::new(),
        }
    }
}

/// A normed input of ones gives A's outputs a deviation of about one half.
fn pair(linear: &Linear, rank: usize, numbers: &mut Numbers) -> LoraPair {
    let a_max = 1.0 / (linear.inputs.max(1) as f32).sqrt();
    LoraPair {
        rank,
        scaling: 1.0,
        a: Matrix::in_memory(numbers.take(rank * linear.inputs, a_max)),
        b: Matrix::in_memory(numbers.take(linear.outputs * rank, B_MAX)),
    }
}

/// A linear congruential generator (Knuth's MMIX): the values must not change with a library's version.
struct Numbers(u64);

impl Numbers {
    /// `count` numbers of `-bound..bound`.
    fn take(&mut self, count: usize, bound: f32) -> impl Iterator<Item = f32> {
        (0..count).map(move |_| {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // The upper 24 bits: all that a float holds.
            let unit = (self.0 >> 40) as f32 / (1_u32 << 24) as f32;
            (2.0 * unit - 1.0) * bound
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_within_the_bound_and_of_both_signs() {
        let numbers: Vec<f32> = Numbers(1).take(1000, 0.5).collect();
        assert!(numbers.iter().all(|number| number.abs() <= 0.5));
        let positive = numbers.iter().filter(|number| **number > 0.0).count();
        assert!((400..600).contains(&positive), "{positive}");
        assert_eq!(numbers, Numbers(1).take(1000, 0.5).collect::<Vec<_>>(), "the same each time");
    }
}

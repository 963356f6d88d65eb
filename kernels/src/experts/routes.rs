//! Routes: which experts a token goes to, and which tokens an expert gets.

use std::ops::Range;

use crate::{
    level::Level,
    rowwise::{at_level, exp, sum},
};

/// Turns the scores of all experts for one token into the weights of their results: the softmax of the scores, zero for all
/// but the `used` largest; if `normalized`, divided by the sum of those. Of equal scores the first counts as larger.
///
/// # Panics
/// `used` is zero or more than there are experts, or the CPU has not the level.
pub fn route(level: Level, scores: &mut [f32], used: usize, normalized: bool) {
    assert!((1..=scores.len()).contains(&used), "{used} experts of {}", scores.len());
    at_level!(level, softmax(scores: &mut [f32]));
    keep_largest(scores, used);
    if normalized {
        let inverse = 1.0 / scores.iter().sum::<f32>();
        scores.iter_mut().for_each(|weight| *weight *= inverse);
    }
}

#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let max = scores.iter().fold(f32::MIN, |max, &score| if score > max { score } else { max });
    scores.iter_mut().for_each(|score| *score = exp(*score - max));
    let inverse = 1.0 / sum(scores, |sum, weight| sum + weight);
    scores.iter_mut().for_each(|weight| *weight *= inverse);
}

/// Sets all but the `count` largest weights to zero. None is negative, so they are ordered as their bits are; a NaN is the
/// largest.
fn keep_largest(weights: &mut [f32], count: usize) {
    let comes_after = |weight: f32, index: usize, (bits, last): (u32, usize)| {
        weight.to_bits() < bits || weight.to_bits() == bits && index > last
    };
    let mut last = None;
    for _ in 0..count {
        let mut next: Option<(u32, usize)> = None;
        for (index, &weight) in weights.iter().enumerate() {
            let left = last.is_none_or(|last| comes_after(weight, index, last));
            if left && next.is_none_or(|(bits, _)| weight.to_bits() > bits) {
                next = Some((weight.to_bits(), index));
            }
        }
        last = next;
    }
    for (index, weight) in weights.iter_mut().enumerate() {
        if last.is_some_and(|last| comes_after(*weight, index, last)) {
            *weight = 0.0;
        }
    }
}

/// Visits of tokens at experts: the rows of a step sorted by expert, so that each expert's weights are read once.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// Token of each visit, sorted by expert, then by token.
    pub(super) tokens: Vec<u32>,
    /// Experts with visits.
    pub(super) experts: Vec<Visited>,
    /// Visits of all tokens, token by token, by expert.
    stops: Vec<Stop>,
    /// First stop of each token, and the end of the last one's.
    first_stops: Vec<usize>,
    /// Next visit of each expert, while they are sorted.
    next: Vec<usize>,
}

/// An expert with its visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visited {
    pub(super) expert: usize,
    pub(super) visits: Range<usize>,
}

/// A visit and its weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    pub(super) visit: usize,
    pub(super) weight: f32,
}

impl Visits {
    /// Sorts the visits of a step, given the weights of all `experts` for each token.
    pub(super) fn update(&mut self, weights: &[f32], experts: usize) {
        self.next.clear();
        self.next.resize(experts, 0);
        for token in weights.chunks_exact(experts) {
            for (next, weight) in self.next.iter_mut().zip(token) {
                *next += usize::from(*weight != 0.0);
            }
        }
        self.experts.clear();
        let mut begin = 0;
        for (expert, next) in self.next.iter_mut().enumerate() {
            let visits = begin..begin + *next;
            *next = begin;
            begin = visits.end;
            if !visits.is_empty() {
                self.experts.push(Visited { expert, visits });
            }
        }
        self.tokens.clear();
        self.tokens.resize(begin, 0);
        self.stops.clear();
        self.first_stops.clear();
        for (token, weights) in weights.chunks_exact(experts).enumerate() {
            self.first_stops.push(self.stops.len());
            for (next, &weight) in self.next.iter_mut().zip(weights).filter(|(_, weight)| **weight != 0.0) {
                self.tokens[*next] = token as u32;
                self.stops.push(Stop { visit: *next, weight });
                *next += 1;
            }
        }
        self.first_stops.push(self.stops.len());
    }

    /// The visits of a token, by expert.
    pub(super) fn of(&self, token: usize) -> &[Stop] {
        &self.stops[self.first_stops[token]..self.first_stops[token + 1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(scores: &[f32], used: usize, normalized: bool) -> Vec<f32> {
        let mut weights = scores.to_vec();
        route(Level::Portable, &mut weights, used, normalized);
        for level in Level::available() {
            let mut same = scores.to_vec();
            route(level, &mut same, used, normalized);
            assert_eq!(format!("{same:?}"), format!("{weights:?}"), "{level:?}");
        }
        weights
    }

    #[test]
    fn weights_are_the_softmax_of_the_largest_scores() {
        let scores = [1.0f32, 3.0, -2.0, 2.0];
        let total: f32 = scores.iter().map(|score| score.exp()).sum();
        let near = |found: &[f32], expected: [f32; 4]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, not {expected:?}");
        };
        near(&routed(&scores, 2, false), [0.0, 3f32.exp() / total, 0.0, 2f32.exp() / total]);
        let two = 3f32.exp() + 2f32.exp();
        near(&routed(&scores, 2, true), [0.0, 3f32.exp() / two, 0.0, 2f32.exp() / two]);
        assert!(routed(&scores, 4, false).iter().all(|weight| *weight > 0.0));
    }

    #[test]
    fn as_many_experts_are_used_whatever_the_scores() {
        assert_eq!(routed(&[5.0; 3], 2, true), [0.5, 0.5, 0.0]);
        for scores in [[f32::NAN, 1.0, 2.0], [f32::NEG_INFINITY; 3], [f32::INFINITY, 1.0, 0.0]] {
            let weights = routed(&scores, 2, false);
            assert!(weights.iter().filter(|weight| **weight != 0.0).count() <= 2, "{weights:?}");
        }
    }

    #[test]
    fn visits_are_sorted_by_expert_and_each_token_finds_its_own() {
        let mut visits = Visits::default();
        visits.update(&[0.5, 0.0, 0.25, 0.0, 0.0, 1.0, 0.125, 0.0, 0.75], 3);
        assert_eq!(visits.tokens, [0, 2, 0, 1, 2]);
        let expected = [Visited { expert: 0, visits: 0..2 }, Visited { expert: 2, visits: 2..5 }];
        assert_eq!(visits.experts, expected);
        let of = |token| visits.of(token).iter().map(|stop| (stop.visit, stop.weight)).collect::<Vec<_>>();
        assert_eq!([of(0), of(1), of(2)], [vec![(0, 0.5), (2, 0.25)], vec![(3, 1.0)], vec![(1, 0.125), (4, 0.75)]]);
    }
}

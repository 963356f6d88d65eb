//! Speculative decoding by prompt lookup: drafts the tokens that followed the same n-gram earlier in prompt or answer.
//!
//! One forward pass verifies all tokens of a draft for the price of its extra rows. Every token is still sampled from
//! the model's own distribution with the same random numbers, so drafts only change the speed.

use std::ops::Range;

/// Longest and shortest n-gram to look up.
const MATCH_MAX: usize = 3;
const MATCH_MIN: usize = 2;
/// Bound on the tokens of a draft.
const DRAFT_MAX: usize = 8;

/// Tokens that followed the latest earlier occurrence of the final n-gram, at most `most`.
fn lookup(tokens: &[u32], most: usize) -> &[u32] {
    for matched in (MATCH_MIN..=MATCH_MAX).rev() {
        let Some(begin) = tokens.len().checked_sub(matched) else { continue };
        let (end, before) = (&tokens[begin..], &tokens[..tokens.len() - 1]);
        if let Some(at) = before.windows(matched).rposition(|window| window == end) {
            let next = &tokens[at + matched..];
            return &next[..next.len().min(most)];
        }
    }
    &[]
}

/// Weight of the newest observation.
const NEWEST: f64 = 0.2;
/// Assumed acceptance rate of a new sequence.
const EXPECTED: f64 = 0.4;
/// Rate at which failures are forgotten, per step.
const FORGET: f64 = 0.005;

/// Acceptance statistics of one sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// Probability that the next drafted token is accepted if those before it were.
    rate: f64,
}

impl Record {
    pub(super) fn new() -> Self {
        Self { rate: EXPECTED }
    }

    /// Records that `drafted` tokens were verified up to the first rejection, and `right` of them accepted.
    pub(super) fn observe(&mut self, drafted: usize, right: usize) {
        for _ in 0..right {
            self.rate += (1.0 - self.rate) * NEWEST;
        }
        if right < drafted {
            self.rate -= self.rate * NEWEST;
        }
    }

    fn forget(&mut self) {
        self.rate += (EXPECTED - self.rate) * FORGET;
    }
}

/// Linear model of the duration of a step: `seconds = fixed + row * rows`, fitted to recent steps.
#[derive(Debug, Default)]
pub(super) struct Cost {
    weight: f64,
    rows: f64,
    seconds: f64,
    /// Sums of squared deviations from the means.
    rows_rows: f64,
    rows_seconds: f64,
}

/// Assumed duration of a row relative to a step of one row, until steps of several sizes were observed.
const ROW_SHARE: f64 = 0.2;
/// Effective number of remembered steps.
const MEMORY: f64 = 100.0;

impl Cost {
    /// Records the duration of a step.
    pub(super) fn observe(&mut self, rows: usize, seconds: f64) {
        let keep = 1.0 - 1.0 / MEMORY;
        self.weight = self.weight * keep + 1.0;
        let (rows_off, seconds_off) = (rows as f64 - self.rows, seconds - self.seconds);
        self.rows += rows_off / self.weight;
        self.seconds += seconds_off / self.weight;
        self.rows_rows = self.rows_rows * keep + rows_off * (rows as f64 - self.rows);
        self.rows_seconds = self.rows_seconds * keep + rows_off * (seconds - self.seconds);
    }

    /// Duration of a row relative to a step of `rows`; `None` before the first step.
    fn row_share(&self, rows: usize) -> Option<f64> {
        if self.weight == 0.0 {
            return None;
        }
        // The assumption has the weight of one observed step.
        let expected = self.seconds * ROW_SHARE / (1.0 + ROW_SHARE * (self.rows - 1.0).max(0.0));
        let row = (self.rows_seconds + expected) / (self.rows_rows + 1.0);
        let step = self.seconds + row * (rows as f64 - self.rows);
        Some((row / step.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0))
    }
}

/// Draft lengths that maximise tokens per second. `drafts` are statistics and available lengths of sequences; `rows` is
/// the number of rows without drafts and the bound with them.
pub(super) fn lengths(drafts: &[(Record, usize)], rows: Range<usize>, cost: &Cost) -> Vec<usize> {
    let mut lengths = vec![0; drafts.len()];
    let (mut rows, most, mut tokens) = (rows.start, rows.end, rows.start as f64);
    loop {
        let gain = |index: usize| {
            let (Record { rate }, found) = drafts[index];
            if lengths[index] < found { rate.powi(lengths[index] as i32 + 1) } else { 0.0 }
        };
        let best = (0..drafts.len()).max_by(|&a, &b| gain(a).total_cmp(&gain(b)));
        let (Some(best), Some(share)) = (best, cost.row_share(rows)) else { return lengths };
        if gain(best) / tokens <= share || rows >= most {
            return lengths;
        }
        tokens += gain(best);
        rows += 1;
        lengths[best] += 1;
    }
}

/// A draft after `tokens`, at most `most` tokens.
pub(super) fn propose(tokens: &[u32], most: usize, record: &mut Record) -> Vec<u32> {
    record.forget();
    lookup(tokens, most.min(DRAFT_MAX)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_next_before_is_found() {
        assert_eq!(lookup(&[1, 2, 3, 4, 5, 1, 2, 3], 8), [4, 5, 1, 2, 3]);
        assert_eq!(lookup(&[1, 2, 3, 4, 5, 1, 2, 3], 2), [4, 5]);
        assert_eq!(lookup(&[9, 2, 3, 7, 8, 2, 3, 6, 1, 2, 3], 1), [6], "the latest of two");
        assert_eq!(lookup(&[1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 1), [4], "the longest match");
        assert_eq!(lookup(&[7, 7, 7, 7], 3), [7], "a loop goes on");
        assert!(lookup(&[1, 2, 3], 3).is_empty() && lookup(&[], 3).is_empty() && lookup(&[1], 3).is_empty());
    }

    /// A step of 5 ms plus 1.3 ms a row.
    fn cost() -> Cost {
        let mut cost = Cost::default();
        for rows in [1, 2, 1, 4, 8, 8, 1] {
            cost.observe(rows, 0.005 + 0.0013 * rows as f64);
        }
        cost
    }

    #[test]
    fn the_cost_of_a_row_is_learnt() {
        assert!((cost().row_share(1).unwrap() - 0.0013 / 0.0063).abs() < 0.02);
        assert!((cost().row_share(8).unwrap() - 0.0013 / 0.0154).abs() < 0.01);
        let mut same = Cost::default();
        (0..500).for_each(|_| same.observe(4, 0.01));
        let share = same.row_share(4).unwrap();
        assert!((0.05..0.2).contains(&share), "{share}: expected until seen");
    }

    #[test]
    fn a_draft_is_as_long_as_it_pays() {
        let (good, bad) = (Record { rate: 0.9 }, Record { rate: 0.1 });
        assert_eq!(lengths(&[(bad, 8)], 1..64, &cost()), [0]);
        assert_eq!(lengths(&[(good, 3)], 1..64, &cost()), [3]);
        assert!(lengths(&[(good, 8)], 1..64, &cost())[0] >= 3);
        assert_eq!(lengths(&[(good, 8), (good, 8)], 2..3, &cost()).iter().sum::<usize>(), 1, "room for one row");
        // With many rows a draft must be more certain to pay off.
        assert_eq!(lengths(&[(Record { rate: 0.5 }, 8)], 8..64, &cost()), [0]);
        assert!(lengths(&[(good, 8)], 8..64, &cost())[0] >= 1);
        assert_eq!(lengths(&[(good, 8)], 1..64, &Cost::default()), [0], "nothing is known of this machine");
    }

    #[test]
    fn failures_end_drafts_and_are_forgotten() {
        let mut record = Record::new();
        (0..10).for_each(|_| record.observe(3, 0));
        assert_eq!(lengths(&[(record, 8)], 1..64, &cost()), [0]);
        let steps = (0..10_000).find(|_| {
            propose(&[], 8, &mut record);
            lengths(&[(record, 8)], 1..64, &cost())[0] > 0
        });
        assert!((20..500).contains(&steps.unwrap()), "{steps:?}");
        (0..10).for_each(|_| record.observe(2, 2));
        assert!(record.rate > 0.8);
    }
}

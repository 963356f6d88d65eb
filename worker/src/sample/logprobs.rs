//! Log-probabilities of tokens.

use crate::runtime::Top;

/// Log-probabilities at one generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// The sampled token.
    pub chosen: TokenLogprob,
    /// The likeliest tokens, in descending order.
    pub top: Vec<TokenLogprob>,
}

/// A token and the natural logarithm of its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// Token id.
    pub id: u32,
    /// `ln p` at temperature 1, before penalties and biases, among the allowed tokens.
    pub logprob: f32,
}

impl Logprobs {
    /// Log-probabilities of the candidate at `place` and of the `count` likeliest tokens.
    pub(super) fn of_top(top: &Top<'_>, place: usize, count: usize) -> Self {
        let of = |place: usize| TokenLogprob { id: top.ids[place], logprob: top.logits[place] - top.log_sum_exp };
        Self { chosen: of(place), top: (0..count.min(top.ids.len())).map(of).collect() }
    }

    /// Log-probabilities of `chosen` and of the `top` likeliest tokens.
    pub fn of(logits: &[f32], chosen: u32, top: usize) -> Self {
        let log_sum = log_sum_exp(logits);
        let of = |id: u32| TokenLogprob { id, logprob: logits[id as usize] - log_sum };
        let mut ids: Vec<u32> =
            (0..logits.len() as u32).filter(|id| logits[*id as usize] > f32::NEG_INFINITY).collect();
        let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let top = top.min(ids.len());
        if top > 0 {
            ids.select_nth_unstable_by(top - 1, likelier);
            ids.truncate(top);
            ids.sort_unstable_by(likelier);
        } else {
            ids.clear();
        }
        Self { chosen: of(chosen), top: ids.into_iter().map(of).collect() }
    }
}

/// `ln(sum(exp(x)))`, without overflow.
pub(crate) fn log_sum_exp(values: &[f32]) -> f32 {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = values.iter().map(|&x| f64::from((x - largest).exp())).sum();
    largest + sum.ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_come_likeliest_first() {
        let logits = [0.5, -3.0, 2.0, 2.0, 100.0f32.ln()];
        let all = Logprobs::of(&logits, 1, 9);
        let sum: f32 = all.top.iter().map(|t| t.logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert_eq!(all.top.iter().map(|t| t.id).collect::<Vec<_>>(), [4, 2, 3, 0, 1]);
        assert_eq!(all.chosen.logprob, all.top[4].logprob);
        assert!(Logprobs::of(&logits, 1, 0).top.is_empty());
    }
}

//! Sampling from the tokens that top-k, top-p and min-p leave.

use rand::Rng;

use super::SamplingParams;
use crate::runtime::Top;

/// Samples from the softmax of `logits / temperature`. `largest` is the largest logit, and finite.
pub(super) fn draw(logits: &[f32], largest: f32, params: &SamplingParams, random: &mut impl Rng) -> u32 {
    let weight = |logit: f32| ((logit - largest) / params.temperature).exp();
    // Most tokens of a constrained answer are not allowed.
    let possible = logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    let mut candidates: Vec<(u32, f32)> = possible.map(|(token, logit)| (token as u32, weight(*logit))).collect();
    keep_top_k(&mut candidates, params.top_k);
    keep_top_p(&mut candidates, params.top_p);
    // The likeliest token has weight 1, so min_p is a threshold on the weights themselves.
    if params.min_p > 0.0 {
        candidates.retain(|&(_, w)| w >= params.min_p);
    }
    pick(&candidates, random)
}

/// Place among a row's candidates of one sampled as by [`draw`]; `None` if the choice may be beyond them.
pub(super) fn draw_top(top: &Top<'_>, params: &SamplingParams, random: &mut impl Rng) -> Option<usize> {
    let largest = *top.logits.first()?;
    let weight = |logit: &f32| ((logit - largest) / params.temperature).exp();
    let mut candidates: Vec<(u32, f32)> = top.ids.iter().copied().zip(top.logits.iter().map(weight)).collect();
    if params.top_k > 0 {
        candidates.truncate(params.top_k);
        candidates.sort_unstable_by_key(|&(token, _)| token);
        keep_top_p(&mut candidates, params.top_p);
    } else if params.top_p < 1.0 {
        let (mut reached, enough) = (0.0, f64::from(params.top_p) * f64::from(top.total));
        let last = candidates.iter().position(|&(_, w)| {
            reached += f64::from(w);
            reached >= enough
        })?;
        candidates.truncate(last + 1);
    } else {
        // Those beyond are no likelier than the last.
        candidates.last().filter(|(_, w)| *w < params.min_p)?;
        candidates.sort_unstable_by_key(|&(token, _)| token);
    }
    if params.min_p > 0.0 {
        candidates.retain(|&(_, w)| w >= params.min_p);
    }
    let token = pick(&candidates, random);
    top.ids.iter().position(|&id| id == token)
}

fn by_weight(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn keep_top_k(candidates: &mut Vec<(u32, f32)>, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, by_weight);
        candidates.truncate(k);
        // Ordered, so that the result does not depend on the selection's internals.
        candidates.sort_unstable_by_key(|&(token, _)| token);
    }
}

/// Keeps the fewest tokens whose probabilities reach `p`.
fn keep_top_p(candidates: &mut Vec<(u32, f32)>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let total: f64 = candidates.iter().map(|&(_, w)| f64::from(w)).sum();
    // All tokens below this probability together cannot make up 1 - p, so the others reach p without them, and only
    // those need sorting.
    let negligible = ((1.0 - f64::from(p)) * total / candidates.len() as f64) as f32;
    candidates.retain(|&(_, w)| w >= negligible);
    candidates.sort_unstable_by(by_weight);
    let mut reached = 0.0;
    let kept = candidates.iter().position(|&(_, w)| {
        reached += f64::from(w);
        reached >= f64::from(p) * total
    });
    candidates.truncate(kept.map_or(candidates.len(), |last| last + 1));
}

fn pick(candidates: &[(u32, f32)], random: &mut impl Rng) -> u32 {
    let total: f64 = candidates.iter().map(|&(_, w)| f64::from(w)).sum();
    let mut left = random.random::<f64>() * total;
    for &(token, w) in candidates {
        left -= f64::from(w);
        if left < 0.0 {
            return token;
        }
    }
    // Rounding may leave a remainder; it goes to the last token with a positive weight.
    candidates.iter().rev().find(|&&(_, w)| w > 0.0).map_or(0, |&(token, _)| token)
}

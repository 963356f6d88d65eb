//! Sampling: from a row of logits to a token.
//!
//! Order: the tokens that a constraint allows; log-probabilities of these from the raw logits; then penalties and biases,
//! temperature, top-k, top-p, min-p, and the random choice. Greedy decoding (temperature 0) stops after the penalties.

mod draw;
mod logprobs;
mod mask;

use std::collections::HashMap;

use crate::runtime::{TOP, Top};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub(crate) use logprobs::log_sum_exp;
pub use logprobs::{Logprobs, TokenLogprob};
pub use mask::Mask;

/// Sampling parameters, validated by [`crate::admit`].
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Temperature; 0 is greedy.
    pub temperature: f32,
    /// Top-k; 0 disables it.
    pub top_k: usize,
    /// Top-p; 1 disables it.
    pub top_p: f32,
    /// Min-p; 0 disables it.
    pub min_p: f32,
    /// Repetition penalty; 1 disables it.
    pub repetition_penalty: f32,
    /// Presence penalty; 0 disables it.
    pub presence_penalty: f32,
    /// Frequency penalty; 0 disables it.
    pub frequency_penalty: f32,
    /// Seed of the request's random generator.
    pub seed: u64,
    /// Number of likeliest tokens to report log-probabilities of, besides the sampled one; `None` for no report.
    pub logprobs: Option<usize>,
    /// What is added to the logits of tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl SamplingParams {
    /// Greedy decoding.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
        logprobs: None,
        logit_bias: Vec::new(),
    };

    fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Whether logits change before the choice.
    fn changes_logits(&self) -> bool {
        self.penalises() || !self.logit_bias.is_empty()
    }
}

/// A row of logits without a largest value: the model computed NaN or infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model computed logits that are not finite; its weights or the adapter's are damaged or out of range")]
pub struct NotFinite;

/// Sampler of one request.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    random: ChaCha8Rng,
    /// Number of times each token was generated; 0 for tokens of the prompt alone.
    seen: HashMap<u32, u32>,
    scratch: Vec<f32>,
    /// Logits of the allowed tokens.
    allowed: Vec<f32>,
}

impl Sampler {
    /// A sampler for an answer to `prompt`.
    pub fn new(params: SamplingParams, prompt: &[u32]) -> Self {
        let seen = if params.penalises() { prompt.iter().map(|&token| (token, 0)).collect() } else { HashMap::new() };
        Self { random: ChaCha8Rng::seed_from_u64(params.seed), params, seen, scratch: Vec::new(), allowed: Vec::new() }
    }

    /// The next token, with its log-probabilities if requested; one that `mask` allows, if there is one.
    pub fn sample(&mut self, logits: &[f32], mask: Option<&Mask>) -> Result<(u32, Option<Logprobs>), NotFinite> {
        let Some(mask) = mask else { return self.sample_any(logits) };
        let mut allowed = std::mem::take(&mut self.allowed);
        mask.keep(logits, &mut allowed);
        let sampled = self.sample_any(&allowed);
        self.allowed = allowed;
        sampled
    }

    fn sample_any(&mut self, logits: &[f32]) -> Result<(u32, Option<Logprobs>), NotFinite> {
        let token = if self.params.changes_logits() {
            self.scratch.clear();
            self.scratch.extend_from_slice(logits);
            self.penalise();
            let changed = std::mem::take(&mut self.scratch);
            let token = self.choose(&changed);
            self.scratch = changed;
            let token = token?;
            if self.params.penalises() {
                *self.seen.entry(token).or_insert(0) += 1;
            }
            token
        } else {
            self.choose(logits)?
        };
        Ok((token, self.params.logprobs.map(|top| Logprobs::of(logits, token, top))))
    }

    /// The temperature of the candidates that suffice for the next token without a mask; `None` if it takes a whole row: with penalties
    /// or biases, which may favour any token, and where no token is left out.
    pub fn candidates(&self) -> Option<f32> {
        let SamplingParams { temperature, top_k, top_p, min_p, logprobs, .. } = self.params;
        if self.params.changes_logits() || logprobs.is_some_and(|top| top > TOP) {
            return None;
        }
        if temperature == 0.0 {
            return Some(1.0);
        }
        (1..=TOP).contains(&top_k).then_some(temperature).or((top_p < 1.0 || min_p > 0.0).then_some(temperature))
    }

    /// The next token of a row's candidates; `None` if it may be none of them.
    pub fn sample_top(&mut self, top: &Top<'_>) -> Option<Result<(u32, Option<Logprobs>), NotFinite>> {
        if top.log_sum_exp.is_nan() {
            return Some(Err(NotFinite));
        }
        let place = match self.params.temperature {
            0.0 => 0,
            _ => draw::draw_top(top, &self.params, &mut self.random)?,
        };
        let logprobs = self.params.logprobs.map(|count| Logprobs::of_top(top, place, count));
        Some(Ok((top.ids[place], logprobs)))
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32, NotFinite> {
        let (best, largest) = argmax(logits).ok_or(NotFinite)?;
        if self.params.temperature == 0.0 {
            return Ok(best);
        }
        Ok(draw::draw(logits, largest, &self.params, &mut self.random))
    }

    fn penalise(&mut self) {
        let SamplingParams { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.params;
        for (&token, &count) in &self.seen {
            let Some(logit) = self.scratch.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            if count > 0 {
                *logit -= presence_penalty + frequency_penalty * count as f32;
            }
        }
        for &(token, bias) in &self.params.logit_bias {
            if let Some(logit) = self.scratch.get_mut(token as usize) {
                *logit += bias;
            }
        }
    }
}

/// Index and value of the largest element, the first of equals; `None` if none is finite or any is NaN.
pub fn argmax(values: &[f32]) -> Option<(u32, f32)> {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut nan = [false; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            let x = chunk[lane];
            nan[lane] |= x.is_nan();
            lanes[lane] = if x > lanes[lane] { x } else { lanes[lane] };
        }
    }
    let largest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    if !largest.is_finite() || nan.contains(&true) || rest.iter().any(|x| x.is_nan()) {
        return None;
    }
    let index = values.iter().position(|&x| x == largest)?;
    Some((index as u32, largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 1009) as f32 / 200.0).collect()
    }

    fn with(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
        let mut params = SamplingParams { temperature: 1.0, ..SamplingParams::GREEDY };
        change(&mut params);
        params
    }

    fn tokens(params: &SamplingParams, logits: &[f32], n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(params.clone(), &[]);
        (0..n).map(|_| sampler.sample(logits, None).unwrap().0).collect()
    }

    #[test]
    fn argmax_takes_the_first_of_equals_and_refuses_what_is_not_a_number() {
        for n in [1, 15, 16, 17, 33, 1000] {
            let mut values = vec![-1.0; n];
            assert_eq!(argmax(&values), Some((0, -1.0)));
            values[n - 1] = 2.0;
            assert_eq!(argmax(&values), Some((n as u32 - 1, 2.0)));
            values[n / 2] = f32::NAN;
            assert_eq!(argmax(&values), None);
        }
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 20]), None);
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let logits = logits(500);
        let seeded = |seed| tokens(&with(|p| p.seed = seed), &logits, 40);
        assert_eq!(seeded(7), seeded(7));
        assert_ne!(seeded(7), seeded(8));
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [1.0f32.ln(), 2.0f32.ln(), 5.0f32.ln()];
        for (name, params, expected) in [
            ("plain", with(|_| ()), [0.125, 0.25, 0.625]),
            ("half temperature", with(|p| p.temperature = 0.5), [1.0 / 30.0, 4.0 / 30.0, 25.0 / 30.0]),
            ("top 2", with(|p| p.top_k = 2), [0.0, 2.0 / 7.0, 5.0 / 7.0]),
            ("top half", with(|p| p.top_p = 0.5), [0.0, 0.0, 1.0]),
            ("top nothing: the likeliest", with(|p| p.top_p = 0.0), [0.0, 0.0, 1.0]),
            ("as likely as the likeliest", with(|p| p.min_p = 1.0), [0.0, 0.0, 1.0]),
            ("top 80 %", with(|p| p.top_p = 0.8), [0.0, 2.0 / 7.0, 5.0 / 7.0]),
            ("at least 30 % of the likeliest", with(|p| p.min_p = 0.3), [0.0, 2.0 / 7.0, 5.0 / 7.0]),
        ] {
            let n = 20_000;
            let drawn = tokens(&params, &logits, n);
            for (token, &share) in expected.iter().enumerate() {
                let seen = drawn.iter().filter(|&&t| t == token as u32).count() as f64 / n as f64;
                assert!((seen - share).abs() < 0.015, "{name}: token {token} came {seen}, expected {share}");
            }
        }
    }

    /// Candidates give the tokens that whole rows give, draw by draw, or none.
    #[test]
    fn candidates_suffice_or_say_that_they_do_not() {
        let logits = logits(500);
        let rows = crate::runtime::TopRows::of;
        for (params, suffices) in [
            (SamplingParams::GREEDY, true),
            (with(|p| p.top_k = 40), true),
            (with(|p| (p.top_k, p.top_p, p.temperature) = (64, 0.9, 0.7)), true),
            (with(|p| (p.top_k, p.min_p) = (20, 0.5)), true),
            (with(|p| (p.top_p, p.temperature) = (0.3, 0.2)), true),
            (with(|p| (p.min_p, p.temperature) = (0.9, 0.5)), true),
            // More tokens than there are candidates.
            (with(|p| p.top_p = 0.9), false),
            (with(|p| p.min_p = 0.01), false),
        ] {
            let temperature = Sampler::new(params.clone(), &[]).candidates().expect("candidates may suffice");
            let top = rows(&logits, 500, &[temperature]);
            let top = top.row(0).unwrap();
            let mut sampler = Sampler::new(params.clone(), &[]);
            let drawn: Option<Vec<u32>> = (0..50).map(|_| Some(sampler.sample_top(&top)?.unwrap().0)).collect();
            assert_eq!(drawn, suffices.then(|| tokens(&params, &logits, 50)), "{params:?}");
        }
        for whole in [with(|_| ()), with(|p| p.top_k = 65), with(|p| (p.top_k, p.presence_penalty) = (5, 0.1))] {
            assert_eq!(Sampler::new(whole, &[]).candidates(), None);
        }
    }

    #[test]
    fn candidates_have_the_log_probabilities_of_the_row() {
        let logits = logits(500);
        let params = SamplingParams { logprobs: Some(5), ..SamplingParams::GREEDY };
        let (token, expected) = Sampler::new(params.clone(), &[]).sample(&logits, None).unwrap();
        let rows = crate::runtime::TopRows::of(&logits, 500, &[1.0]);
        let (found, logprobs) = Sampler::new(params, &[]).sample_top(&rows.row(0).unwrap()).unwrap().unwrap();
        let (expected, logprobs) = (expected.unwrap(), logprobs.unwrap());
        assert_eq!(token, found);
        assert_eq!(
            logprobs.top.iter().map(|t| t.id).collect::<Vec<_>>(),
            expected.top.iter().map(|t| t.id).collect::<Vec<_>>()
        );
        for (ours, theirs) in logprobs.top.iter().zip(&expected.top).chain([(&logprobs.chosen, &expected.chosen)]) {
            assert!((ours.logprob - theirs.logprob).abs() < 1e-4, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn only_what_a_mask_allows_is_sampled() {
        let logits = logits(500);
        let mut mask = Mask::new(&[0; 16]);
        [3, 77, 401].into_iter().for_each(|token| mask.set(token, true));
        for params in [
            SamplingParams::GREEDY,
            with(|_| ()),
            with(|p| p.top_k = 40),
            with(|p| (p.top_p, p.min_p) = (0.9, 0.01)),
            with(|p| p.repetition_penalty = 1.3),
            with(|p| p.logit_bias = vec![(4, 100.0)]),
        ] {
            let params = SamplingParams { logprobs: Some(5), ..params };
            let mut sampler = Sampler::new(params, &[]);
            for _ in 0..50 {
                let (token, logprobs) = sampler.sample(&logits, Some(&mask)).unwrap();
                assert!(mask.allows(token), "{token}");
                let logprobs = logprobs.unwrap();
                assert_eq!(logprobs.top.len(), 3, "of the allowed tokens only");
                let sum: f32 = logprobs.top.iter().map(|top| top.logprob.exp()).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            }
        }
        assert_eq!(Sampler::new(with(|_| ()), &[]).sample(&logits, Some(&Mask::new(&[0; 16]))), Err(NotFinite));
    }

    #[test]
    fn biases_make_tokens_likelier_or_impossible() {
        let logits = [1.0, 2.0, 3.0];
        let drawn = |bias: &[(u32, f32)]| tokens(&with(|p| p.logit_bias = bias.to_vec()), &logits, 50);
        assert!(drawn(&[(0, 100.0)]).iter().all(|token| *token == 0));
        assert!(drawn(&[(2, -100.0), (9, 100.0)]).iter().all(|token| *token != 2));
        assert_eq!(
            Sampler::new(SamplingParams { logit_bias: vec![(0, 1.0)], ..SamplingParams::GREEDY }, &[]).candidates(),
            None
        );
    }

    #[test]
    fn penalties_change_what_was_seen() {
        let logits = [3.0, 2.9, -1.0];
        let greedy = |change: fn(&mut SamplingParams), prompt: &[u32]| {
            let mut params = SamplingParams::GREEDY;
            change(&mut params);
            let mut sampler = Sampler::new(params, prompt);
            (0..4).map(|_| sampler.sample(&logits, None).unwrap().0).collect::<Vec<_>>()
        };
        assert_eq!(greedy(|_| (), &[]), [0, 0, 0, 0]);
        // Presence counts once, so after both were seen the better one stays.
        assert_eq!(greedy(|p| p.presence_penalty = 0.5, &[]), [0, 1, 0, 0]);
        assert_eq!(greedy(|p| p.frequency_penalty = 0.5, &[]), [0, 1, 0, 1]);
        // Only the repetition penalty looks at the prompt.
        assert_eq!(greedy(|p| p.repetition_penalty = 1.5, &[0])[0], 1);
        assert_eq!(greedy(|p| p.presence_penalty = 0.5, &[0])[0], 0);
    }
}

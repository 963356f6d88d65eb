//! Confidence of an answer, from the probabilities of its tokens. Pure.

use slm_crds::route::Measure;
use slm_proto::v1::Delta;

/// Probabilities of the tokens so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Confidence {
    /// Of logarithms.
    sum: f64,
    least: f64,
    tokens: u32,
}

impl Confidence {
    pub(crate) fn add(&mut self, delta: &Delta) {
        for token in &delta.logprobs {
            let logarithm = f64::from(token.logprob);
            self.sum += logarithm;
            self.least = self.least.min(logarithm);
            self.tokens += 1;
        }
    }

    /// From 0 to 1. An answer without tokens, or with a probability that is no number, has none.
    pub(crate) fn of(self, measure: Measure) -> f64 {
        if self.tokens == 0 {
            return 0.0;
        }
        let logarithm = match measure {
            Measure::Mean => self.sum / f64::from(self.tokens),
            Measure::Least => self.least,
        };
        let confidence = logarithm.exp();
        if confidence.is_nan() { 0.0 } else { confidence.min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::TokenLogprob;

    use super::*;

    fn confidence(probabilities: &[f32]) -> [f64; 2] {
        let mut confidence = Confidence::default();
        for probability in probabilities {
            let logprobs = vec![TokenLogprob { logprob: probability.ln(), ..TokenLogprob::default() }];
            confidence.add(&Delta { logprobs, ..Delta::default() });
        }
        [Measure::Mean, Measure::Least].map(|measure| confidence.of(measure))
    }

    #[test]
    fn the_mean_is_geometric_and_the_least_is_the_lowest() {
        let [mean, least] = confidence(&[1.0, 0.25, 1.0]);
        assert!((mean - 0.25f64.powf(1.0 / 3.0)).abs() < 1e-6 && (least - 0.25).abs() < 1e-6, "{mean} {least}");
        assert_eq!(confidence(&[]), [0.0, 0.0]);
        assert_eq!(confidence(&[0.0]), [0.0, 0.0]);
        assert_eq!(confidence(&[f32::NAN])[0], 0.0);
    }
}

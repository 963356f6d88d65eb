//! Admission: all bounds on a request that are checked once its prompt is tokenised.

use rand::Rng;
use slm_convert::generation::GenerationDefaults;
use slm_proto::v1;

use crate::sample::SamplingParams;

/// Bound on the stop strings of a request.
pub const STOP_STRINGS_MAX: usize = 16;
/// Bound on the bytes of a stop string.
pub const STOP_STRING_BYTES_MAX: usize = 512;
/// Bound on the stop token ids of a request.
pub const STOP_IDS_MAX: usize = 256;
/// Bound on the log-probabilities of a token.
pub const LOGPROBS_MAX: u32 = 20;
/// Bound on the temperature; also OpenAI's.
pub const TEMPERATURE_MAX: f32 = 2.0;
/// Bound on the biased tokens of a request; also OpenAI's.
pub const LOGIT_BIAS_MAX: usize = 300;
/// Bounds on the repetition penalty: beyond them, logits overflow.
pub const REPETITION_PENALTY_MIN: f32 = 0.01;
/// See [`REPETITION_PENALTY_MIN`].
pub const REPETITION_PENALTY_MAX: f32 = 100.0;

/// A request that cannot be served. The message begins with the field.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AdmitError {
    /// A value out of range.
    #[error("{field} is {found}; it must be {expected}")]
    OutOfRange {
        /// Name of the request's field.
        field: &'static str,
        /// Value of the field.
        found: String,
        /// Allowed values.
        expected: &'static str,
    },
    /// A list with too many entries.
    #[error("{field} has {found} entries; at most {max} are accepted")]
    TooMany {
        /// Name of the request's field.
        field: &'static str,
        /// Number of entries.
        found: usize,
        /// Allowed entries.
        max: usize,
    },
    /// A token that the vocabulary does not have.
    #[error("{field} has the token {token}; the vocabulary of `{model}` ends at {}", .vocabulary.saturating_sub(1))]
    Token {
        /// Name of the request's field.
        field: &'static str,
        /// Its token.
        token: u32,
        /// Name of the base model.
        model: String,
        /// Tokens of its vocabulary.
        vocabulary: usize,
    },
    /// No prompt.
    #[error("the request has no {0}; send messages, prompt or token_ids with at least one token")]
    Empty(&'static str),
    /// No room for an answer in the context.
    #[error(
        "the prompt has {prompt_tokens} tokens; the context of `{model}` is {context_length}, prompt and answer together"
    )]
    ContextLengthExceeded {
        /// Length of the prompt in tokens.
        prompt_tokens: usize,
        /// Context length in tokens.
        context_length: usize,
        /// Name of the base model.
        model: String,
    },
}

impl AdmitError {
    /// Name of the error in metrics and metadata.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OutOfRange { .. } => "OutOfRange",
            Self::TooMany { .. } => "TooMany",
            Self::Token { .. } => "TokenId",
            Self::Empty(_) => "Empty",
            Self::ContextLengthExceeded { .. } => "ContextLengthExceeded",
        }
    }
}

/// Validated limits and sampling parameters of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// Sampling parameters.
    pub sampling: SamplingParams,
    /// Bound on generated tokens.
    pub tokens_max: usize,
    /// Stop strings: the answer ends before them.
    pub stop: Vec<String>,
    /// Stop token ids: the answer ends at them.
    pub stop_ids: Vec<u32>,
}

/// A model's bounds on requests.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Name of the base model.
    pub model: String,
    /// Bound on prompt and answer together, in tokens.
    pub context_length: usize,
    /// Tokens of the vocabulary: rows of logits have as many.
    pub vocabulary: usize,
    /// Defaults of unset fields.
    pub defaults: GenerationDefaults,
}

/// Validates a request whose prompt has `prompt_tokens` tokens. `own_ends` are end-of-sequence ids of the request's
/// adapter in addition to the base's.
pub fn admit(
    request: &v1::GenerateRequest,
    prompt_tokens: usize,
    own_ends: &[u32],
    limits: &Limits,
) -> Result<Admitted, AdmitError> {
    if prompt_tokens == 0 {
        return Err(AdmitError::Empty("prompt"));
    }
    if prompt_tokens >= limits.context_length {
        return Err(AdmitError::ContextLengthExceeded {
            prompt_tokens,
            context_length: limits.context_length,
            model: limits.model.clone(),
        });
    }
    let left = limits.context_length - prompt_tokens;
    let tokens_max = match request.max_tokens {
        Some(0) => return Err(out_of_range("max_tokens", 0, "at least 1")),
        Some(most) => left.min(most as usize),
        None => left,
    };
    check_stops(request)?;
    let biased = request.sampling.iter().flat_map(|sampling| sampling.logit_bias.keys());
    known("logit_bias", biased, limits)?;
    known("stop_token_ids", request.stop_token_ids.iter(), limits)?;
    let mut stop_ids = request.stop_token_ids.clone();
    if !request.ignore_eos {
        stop_ids.extend(limits.defaults.eos_token_ids.iter().chain(own_ends));
    }
    let sampling = sampling(request, &limits.defaults)?;
    Ok(Admitted { sampling, tokens_max, stop: request.stop.clone(), stop_ids })
}

fn known<'t>(field: &'static str, tokens: impl Iterator<Item = &'t u32>, limits: &Limits) -> Result<(), AdmitError> {
    let Limits { model, vocabulary, .. } = limits;
    match tokens.copied().find(|token| *token as usize >= *vocabulary) {
        Some(token) => Err(AdmitError::Token { field, token, model: model.clone(), vocabulary: *vocabulary }),
        None => Ok(()),
    }
}

fn check_stops(request: &v1::GenerateRequest) -> Result<(), AdmitError> {
    let bounded = |field, found, max| if found > max { Err(AdmitError::TooMany { field, found, max }) } else { Ok(()) };
    bounded("stop", request.stop.len(), STOP_STRINGS_MAX)?;
    if let Some(index) = request.stop.iter().position(String::is_empty) {
        let found = if index == 0 { "an empty string".to_owned() } else { format!("an empty string at index {index}") };
        return Err(out_of_range("stop", found, "strings of at least one character"));
    }
    if let Some(long) = request.stop.iter().find(|stop| stop.len() > STOP_STRING_BYTES_MAX) {
        return Err(out_of_range("stop", format!("{} bytes long", long.len()), "strings of at most 512 bytes"));
    }
    bounded("stop_token_ids", request.stop_token_ids.len(), STOP_IDS_MAX)
}

fn sampling(request: &v1::GenerateRequest, defaults: &GenerationDefaults) -> Result<SamplingParams, AdmitError> {
    let unset = v1::Sampling::default();
    let asked = request.sampling.as_ref().unwrap_or(&unset);
    // As in transformers, sampling fields of generation_config apply only with do_sample.
    let sampled = defaults.do_sample.unwrap_or(false);
    let default = |value: Option<f32>| value.filter(|_| sampled);
    let ranged = |field, value: f32, valid: bool, expected| {
        if valid { Ok(value) } else { Err(out_of_range(field, value, expected)) }
    };
    let temperature = asked.temperature.or(default(defaults.temperature)).unwrap_or(1.0);
    let top_p = asked.top_p.or(default(defaults.top_p)).unwrap_or(1.0);
    let min_p = asked.min_p.or(default(defaults.min_p)).unwrap_or(0.0);
    let repetition = asked.repetition_penalty.or(defaults.repetition_penalty).unwrap_or(1.0);
    let presence = asked.presence_penalty.unwrap_or(0.0);
    let frequency = asked.frequency_penalty.unwrap_or(0.0);
    let two = |x: f32| (-2.0..=2.0).contains(&x);
    let logprobs = match request.logprobs {
        Some(top) if top > LOGPROBS_MAX => return Err(out_of_range("logprobs", top, "at most 20")),
        top => top.map(|top| top as usize),
    };
    Ok(SamplingParams {
        temperature: ranged(
            "temperature",
            temperature,
            (0.0..=TEMPERATURE_MAX).contains(&temperature),
            "between 0 and 2",
        )?,
        top_k: asked.top_k.or(defaults.top_k.filter(|_| sampled)).unwrap_or(0) as usize,
        top_p: ranged("top_p", top_p, (0.0..=1.0).contains(&top_p), "between 0 and 1")?,
        min_p: ranged("min_p", min_p, (0.0..=1.0).contains(&min_p), "between 0 and 1")?,
        repetition_penalty: ranged(
            "repetition_penalty",
            repetition,
            (REPETITION_PENALTY_MIN..=REPETITION_PENALTY_MAX).contains(&repetition),
            "between 0.01 and 100",
        )?,
        presence_penalty: ranged("presence_penalty", presence, two(presence), "between -2 and 2")?,
        frequency_penalty: ranged("frequency_penalty", frequency, two(frequency), "between -2 and 2")?,
        seed: asked.seed.unwrap_or_else(|| rand::rng().random()),
        logprobs,
        logit_bias: logit_bias(asked)?,
    })
}

fn logit_bias(asked: &v1::Sampling) -> Result<Vec<(u32, f32)>, AdmitError> {
    let (field, found) = ("logit_bias", asked.logit_bias.len());
    if found > LOGIT_BIAS_MAX {
        return Err(AdmitError::TooMany { field, found, max: LOGIT_BIAS_MAX });
    }
    let mut biases: Vec<_> = asked.logit_bias.iter().map(|(&token, &bias)| (token, bias)).collect();
    if let Some((token, bias)) = biases.iter().find(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
        return Err(out_of_range(field, format!("{bias} for the token {token}"), "between -100 and 100"));
    }
    biases.sort_unstable_by_key(|(token, _)| *token);
    Ok(biases)
}

fn out_of_range(field: &'static str, found: impl ToString, expected: &'static str) -> AdmitError {
    AdmitError::OutOfRange { field, found: found.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let defaults = GenerationDefaults { eos_token_ids: vec![2], ..GenerationDefaults::default() };
        Limits { model: "tiny".into(), context_length: 100, vocabulary: 400, defaults }
    }

    fn sampling(change: impl FnOnce(&mut v1::Sampling)) -> v1::GenerateRequest {
        let mut sampling = v1::Sampling::default();
        change(&mut sampling);
        v1::GenerateRequest { sampling: Some(sampling), ..Default::default() }
    }

    fn refusal(request: &v1::GenerateRequest, prompt_tokens: usize) -> String {
        admit(request, prompt_tokens, &[], &limits()).unwrap_err().to_string()
    }

    #[test]
    fn every_bound_names_its_field_and_range() {
        let request = v1::GenerateRequest::default;
        for (request, message) in [
            (v1::GenerateRequest { max_tokens: Some(0), ..request() }, "max_tokens is 0; it must be at least 1"),
            (
                v1::GenerateRequest { stop: vec![String::new()], ..request() },
                "stop is an empty string; it must be strings of at least one character",
            ),
            (
                v1::GenerateRequest { stop: vec!["x".into(); 17], ..request() },
                "stop has 17 entries; at most 16 are accepted",
            ),
            (v1::GenerateRequest { logprobs: Some(21), ..request() }, "logprobs is 21; it must be at most 20"),
            (sampling(|s| s.temperature = Some(-0.1)), "temperature is -0.1; it must be between 0 and 2"),
            (sampling(|s| s.temperature = Some(f32::NAN)), "temperature is NaN; it must be between 0 and 2"),
            (sampling(|s| s.temperature = Some(2.5)), "temperature is 2.5; it must be between 0 and 2"),
            (sampling(|s| s.top_p = Some(-0.5)), "top_p is -0.5; it must be between 0 and 1"),
            (sampling(|s| s.min_p = Some(1.5)), "min_p is 1.5; it must be between 0 and 1"),
            (
                sampling(|s| s.repetition_penalty = Some(0.0)),
                "repetition_penalty is 0; it must be between 0.01 and 100",
            ),
            (
                sampling(|s| s.logit_bias = [(1, 101.0)].into()),
                "logit_bias is 101 for the token 1; it must be between -100 and 100",
            ),
            (
                sampling(|s| s.logit_bias = [(500, 1.0)].into()),
                "logit_bias has the token 500; the vocabulary of `tiny` ends at 399",
            ),
            (
                v1::GenerateRequest { stop_token_ids: vec![3, 400], ..request() },
                "stop_token_ids has the token 400; the vocabulary of `tiny` ends at 399",
            ),
            (
                v1::GenerateRequest { stop: vec!["a".into(), String::new()], ..request() },
                "stop is an empty string at index 1; it must be strings of at least one character",
            ),
            (
                sampling(|s| s.logit_bias = (0..301).map(|token| (token, 1.0)).collect()),
                "logit_bias has 301 entries; at most 300 are accepted",
            ),
            (sampling(|s| s.presence_penalty = Some(2.5)), "presence_penalty is 2.5; it must be between -2 and 2"),
        ] {
            assert_eq!(refusal(&request, 10), message);
        }
    }

    #[test]
    fn prompt_and_answer_share_the_context() {
        let request = v1::GenerateRequest { max_tokens: Some(50), ..Default::default() };
        let tokens_max = |prompt| admit(&request, prompt, &[], &limits()).unwrap().tokens_max;
        assert_eq!((tokens_max(10), tokens_max(60), tokens_max(99)), (50, 40, 1));
        assert_eq!(
            refusal(&request, 100),
            "the prompt has 100 tokens; the context of `tiny` is 100, prompt and answer together"
        );
        assert!(refusal(&request, 0).contains("no prompt"));
    }

    #[test]
    fn the_bounds_themselves_are_taken() {
        let edges = |s: &mut v1::Sampling| {
            (s.temperature, s.top_p, s.min_p) = (Some(2.0), Some(0.0), Some(1.0));
            (s.presence_penalty, s.frequency_penalty) = (Some(-2.0), Some(2.0));
        };
        let request = v1::GenerateRequest { logprobs: Some(20), ..sampling(edges) };
        let taken = admit(&request, 1, &[], &limits()).unwrap().sampling;
        assert_eq!((taken.temperature, taken.top_p, taken.logprobs), (2.0, 0.0, Some(20)));
    }

    #[test]
    fn end_of_sequence_ids_stop_unless_ignored() {
        let stops = |ignore_eos| {
            let request = v1::GenerateRequest { ignore_eos, stop_token_ids: vec![7], ..Default::default() };
            admit(&request, 1, &[9], &limits()).unwrap().stop_ids
        };
        assert_eq!((stops(false), stops(true)), (vec![7, 2, 9], vec![7]));
    }

    #[test]
    fn generation_config_fills_in_only_when_it_samples() {
        let with = |do_sample| {
            let defaults = GenerationDefaults { do_sample, temperature: Some(0.6), ..GenerationDefaults::default() };
            let limits = Limits { defaults, ..limits() };
            admit(&v1::GenerateRequest::default(), 1, &[], &limits).unwrap().sampling.temperature
        };
        assert_eq!((with(Some(true)), with(Some(false)), with(None)), (0.6, 1.0, 1.0));
    }
}

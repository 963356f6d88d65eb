//! Parameters that chat completions and completions share. Ranges are checked by the worker, which names the field.

use std::collections::HashMap;

use serde_json::{Map, Value};
use slm_proto::v1::{GenerateRequest, Sampling};

use super::{
    choices::Choices,
    constraint,
    error::ApiError,
    fields::{Clamped, Fields, integer, read, read_as, shown},
    head::CompletionKind,
    names::FieldNames,
};

/// What log-probabilities of candidates may be asked for; the worker has the same bound.
pub(crate) const LOGPROBS: &str = "an integer from 0 to 20";

/// Names of the fields taken by [`take`], for suggestions.
pub(crate) const NAMES: [&str; 31] = [
    "model",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "max_tokens",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "priority",
    "metadata",
    "explain",
    "parse_special_tokens",
    "add_special_tokens",
    "return_tokens_as_token_ids",
    "logprobs",
    "user",
    "n",
    "logit_bias",
    constraint::NAMES[0],
    constraint::NAMES[1],
    constraint::NAMES[2],
    constraint::NAMES[3],
    constraint::NAMES[4],
    constraint::NAMES[5],
];

/// Options on the form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResponseOptions {
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) explain: bool,
    /// Tokens of log-probabilities are called `token_id:N`.
    pub(crate) token_ids: bool,
    /// Answers to each prompt.
    pub(super) choices: Choices,
    /// The caller's names of its fields.
    pub(crate) names: FieldNames,
}

/// Takes the common fields. `input`, `logprobs` and `request_id` stay unset.
pub(crate) fn take(fields: &mut Fields, kind: CompletionKind) -> Result<(GenerateRequest, ResponseOptions), ApiError> {
    let stream = fields.take::<bool>("stream")?.unwrap_or(false);
    let include_usage = stream_options(fields, stream)?;
    let explain = fields.take::<bool>("explain")?.unwrap_or(false);
    let mut names = FieldNames::new(kind);
    let mut sampling = sampling(fields)?;
    if let Some((name, constraint)) = constraint::take(fields)? {
        names.constraint = name;
        sampling.constraint = Some(constraint);
    }
    let request = GenerateRequest {
        model: fields.take::<String>("model")?.unwrap_or_default(),
        sampling: Some(sampling),
        max_tokens: max_tokens(fields, "max_tokens")?,
        stop: stop(fields)?,
        stop_token_ids: stop_token_ids(fields)?,
        ignore_eos: fields.take("ignore_eos")?.unwrap_or(false),
        priority: fields.take("priority")?.unwrap_or(0),
        explain,
        metadata: metadata(fields)?,
        parse_special_tokens: fields.take("parse_special_tokens")?,
        add_special_tokens: fields.take("add_special_tokens")?,
        ..Default::default()
    };
    let token_ids = fields.take("return_tokens_as_token_ids")?.unwrap_or(false);
    Ok((request, ResponseOptions { stream, include_usage, explain, token_ids, choices: Choices::ONE, names }))
}

fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    Ok(Sampling {
        temperature: fields.take("temperature")?,
        top_k: top_k(fields)?,
        top_p: fields.take("top_p")?,
        min_p: fields.take("min_p")?,
        repetition_penalty: fields.take("repetition_penalty")?,
        presence_penalty: fields.take("presence_penalty")?,
        frequency_penalty: fields.take("frequency_penalty")?,
        // OpenAI's seed is signed; the bits are what matters.
        seed: fields.take::<i64>("seed")?.map(i64::cast_unsigned),
        logit_bias: logit_bias(fields)?,
        constraint: None,
    })
}

/// By token id, which JSON writes as a string.
fn logit_bias(fields: &mut Fields) -> Result<HashMap<u32, f32>, ApiError> {
    let biases = fields.take::<Map<String, Value>>("logit_bias")?.unwrap_or_default();
    let bias = |(token, bias): (String, Value)| {
        let token: String = token.chars().take(40).collect();
        let path = format!("logit_bias.{token}");
        let Ok(id) = token.parse() else {
            let message = format!("`{path}`: keys of `logit_bias` have to be token ids, not {token:?}");
            return Err(ApiError::param(&path, message));
        };
        Ok((id, read(&path, &bias)?))
    };
    Fields::new(biases).rest().map(bias).collect()
}

/// More than a context can hold is as much as it can hold. Nothing at all is for the worker to refuse.
pub(crate) fn max_tokens(fields: &mut Fields, name: &str) -> Result<Option<u32>, ApiError> {
    let tokens = fields.take_as::<Clamped>(name, "an integer of at least 1")?;
    Ok(tokens.map(|Clamped(tokens)| tokens))
}

/// -1 means "all" to many clients, as 0 does here.
pub(crate) fn top_k(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    match fields.raw("top_k") {
        None => Ok(None),
        Some(value) if integer(&value) == Some(-1) => Ok(Some(0)),
        Some(value) => read_as("top_k", &value, "an integer of at least 0, or -1 for all tokens").map(Some),
    }
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.take::<Map<String, Value>>("stream_options")? else { return Ok(false) };
    if !stream {
        return Err(ApiError::param("stream_options", "`stream_options` is only for `stream: true`"));
    }
    let mut include_usage = false;
    for (name, value) in Fields::new(options).rest() {
        match name.as_str() {
            "include_usage" => include_usage = read("stream_options.include_usage", &value)?,
            // Padding against eavesdroppers: no part of the answer, and there is none here.
            "include_obfuscation" => {
                read::<bool>("stream_options.include_obfuscation", &value)?;
            }
            // Counts in every event: there are none here.
            "continuous_usage_stats" if value == false => {}
            _ => {
                let path = format!("stream_options.{name}");
                return Err(ApiError::param(&path, format!("`{path}` is not supported")).code("unsupported_parameter"));
            }
        }
    }
    Ok(include_usage)
}

pub(crate) fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    match fields.raw("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(stop)) => Ok(vec![stop]),
        Some(Value::Array(stops)) => {
            let said = stops.iter().enumerate().filter(|(_, stop)| !stop.is_null());
            said.map(|(index, stop)| read(&format!("stop[{index}]"), stop)).collect()
        }
        Some(other) => Err(ApiError::param(
            "stop",
            format!("`stop` has to be a string or a list of strings, not {}", shown(&other)),
        )),
    }
}

fn stop_token_ids(fields: &mut Fields) -> Result<Vec<u32>, ApiError> {
    let ids = fields.take::<Vec<Value>>("stop_token_ids")?.unwrap_or_default();
    ids.iter().enumerate().map(|(index, id)| read(&format!("stop_token_ids[{index}]"), id)).collect()
}

/// Metadata for the rules of a route.
pub(super) fn metadata(fields: &mut Fields) -> Result<HashMap<String, String>, ApiError> {
    let metadata = fields.take::<Map<String, Value>>("metadata")?.unwrap_or_default();
    let said = Fields::new(metadata).rest();
    said.map(|(name, value)| Ok((name.clone(), read(&format!("metadata.{name}"), &value)?))).collect()
}

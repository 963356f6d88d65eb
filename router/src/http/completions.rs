//! `POST /v1/completions`.

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use serde_json::Value;
use slm_proto::v1::{GenerateRequest, TokenIds, generate_request::Input};

use super::{
    Shared, body,
    choices::Choices,
    content_type,
    error::ApiError,
    fields::{Fields, read, shown},
    head::CompletionKind,
    params::{self, ResponseOptions},
    reply, unsupported,
};
use crate::{access::table::Caller, dispatch::Call, metrics::Api};

/// OpenAI's default, and vLLM's. Chat completions go on to the end of the context.
const MAX_TOKENS: u32 = 16;

pub(super) async fn handle(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    content_type::check(&headers)?;
    let prompts_max = dispatcher.limits.prompts_max;
    let parsed = body::read(body, &dispatcher, &caller, move |fields| parse(fields, prompts_max));
    let ((mut requests, options), hold) = parsed.await?;
    let id = reply::request_id(&headers);
    for request in &mut requests {
        request.request_id.clone_from(&id);
    }
    let call = Call::new(caller, Api::http_completions, None);
    reply::respond(&dispatcher, (requests, hold), options, CompletionKind::Text, &call).await
}

/// One request a prompt.
pub(super) fn parse(
    mut fields: Fields,
    prompts_max: usize,
) -> Result<(Vec<GenerateRequest>, ResponseOptions), ApiError> {
    let (mut request, mut options) = params::take(&mut fields, CompletionKind::Text)?;
    options.choices = Choices::best_of(&mut fields, options.stream)?;
    request.max_tokens.get_or_insert(MAX_TOKENS);
    request.logprobs = fields.take_as("logprobs", params::LOGPROBS)?;
    request.suffix = fields.take("suffix")?.unwrap_or_default();
    request.echo = fields.take("echo")?.unwrap_or(false);
    if request.echo && request.logprobs.is_some() {
        let message = "`echo` excludes `logprobs`: those of the prompt are not computed; leave one of them out";
        return Err(ApiError::param("echo", message));
    }
    let prompt = fields.raw("prompt");
    options.names.several = prompt.as_ref().is_some_and(|prompt| prompt.is_array() && !prompt[0].is_number());
    let inputs = inputs(prompt)?;
    if inputs.len() > prompts_max {
        let message = format!("`prompt` holds {} prompts; at most {prompts_max} are taken at once", inputs.len());
        return Err(ApiError::param("prompt", message));
    }
    let computed = options.choices.computed;
    if inputs.len().saturating_mul(computed) > prompts_max.max(computed) {
        let message = format!(
            "{} prompts of {computed} answers each are more than {prompts_max} answers; ask for fewer at once",
            inputs.len()
        );
        return Err(ApiError::param("n", message));
    }
    unsupported::refuse(fields, &[params::NAMES.as_slice(), &["prompt", "suffix", "echo"]].concat())?;
    let requests = inputs.into_iter().map(|input| GenerateRequest { input: Some(input), ..request.clone() });
    Ok((requests.collect(), options))
}

/// A string, a list of strings, a list of token ids, or a list of such lists.
fn inputs(prompt: Option<Value>) -> Result<Vec<Input>, ApiError> {
    match prompt {
        None => Err(ApiError::param("prompt", "`prompt` is missing; send a text to continue")),
        Some(Value::String(text)) => Ok(vec![Input::Prompt(text)]),
        Some(Value::Array(items)) if items.is_empty() => {
            Err(ApiError::param("prompt", "`prompt` is empty; send a text to continue"))
        }
        Some(Value::Array(items)) if items[0].is_number() => Ok(vec![token_ids("prompt", &items)?]),
        Some(Value::Array(items)) => items.into_iter().enumerate().map(|(index, item)| one(index, item)).collect(),
        Some(other) => Err(wrong("prompt", &other)),
    }
}

fn one(index: usize, item: Value) -> Result<Input, ApiError> {
    let path = format!("prompt[{index}]");
    match item {
        Value::String(text) => Ok(Input::Prompt(text)),
        Value::Array(ids) => token_ids(&path, &ids),
        other => Err(wrong(&path, &other)),
    }
}

fn token_ids(path: &str, ids: &[Value]) -> Result<Input, ApiError> {
    let ids = ids.iter().enumerate().map(|(index, id)| read(&format!("{path}[{index}]"), id));
    Ok(Input::TokenIds(TokenIds { ids: ids.collect::<Result<_, _>>()? }))
}

fn wrong(path: &str, value: &Value) -> ApiError {
    let message =
        format!("`{path}` has to be a string, a list of strings or a list of token ids, not {}", shown(value));
    ApiError::param(path, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prompts(prompt: Value) -> Result<Vec<Input>, ApiError> {
        let body = json!({"model": "m", "prompt": prompt, "logprobs": 2, "echo": false});
        let (requests, _) = parse(Fields::new(body.as_object().expect("an object").clone()), 2)?;
        Ok(requests.into_iter().filter_map(|request| request.input).collect())
    }

    #[test]
    fn an_answer_has_16_tokens_unless_the_caller_says_otherwise() {
        for (given, expected) in [(json!(null), 16), (json!(5), 5), (json!(17.0), 17), (json!(1_u64 << 40), u32::MAX)] {
            let body = json!({"model": "m", "prompt": ["a", "b"], "max_tokens": given});
            let (requests, _) = parse(Fields::new(body.as_object().expect("an object").clone()), 2).expect("good");
            assert!(requests.iter().all(|request| request.max_tokens == Some(expected)), "{given}");
        }
    }

    #[test]
    fn prompts_of_every_kind() {
        let text = |text: &str| Input::Prompt(text.to_owned());
        let ids = |ids: &[u32]| Input::TokenIds(TokenIds { ids: ids.to_vec() });
        assert_eq!(prompts(json!("a")), Ok(vec![text("a")]));
        assert_eq!(prompts(json!(["a", "b"])), Ok(vec![text("a"), text("b")]));
        assert_eq!(prompts(json!([1, 2])), Ok(vec![ids(&[1, 2])]));
        assert_eq!(prompts(json!([[1], [2, 3]])), Ok(vec![ids(&[1]), ids(&[2, 3])]));
    }

    #[test]
    fn refusals_name_the_parameter() {
        let cases = [
            (json!(null), "prompt", "missing"),
            (json!([]), "prompt", "empty"),
            (json!({}), "prompt", "not an object"),
            (json!([1, "a"]), "prompt[1]", "an integer"),
            (json!(["a", 1]), "prompt[1]", "not 1"),
            (json!(["a", "b", "c"]), "prompt", "at most 2"),
        ];
        for (prompt, param, message) in cases {
            let error = prompts(prompt).expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param));
            assert!(error.body.message.contains(message), "{}", error.body.message);
        }
    }
}

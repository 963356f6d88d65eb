//! Answers: one message, or the events of a stream.

use axum::{
    Json,
    body::Body,
    http::HeaderValue,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use slm_proto::v1::{Completion, FinishReason, Usage};

use super::{AnthropicError, events::events, request::Asked, tools};
use crate::{
    dispatch::Call,
    http::{
        Shared, body,
        error::{ApiError, Refused},
        sse,
    },
    refusal::Refusal,
};

/// Anthropic's header with the id of a request.
const REQUEST_ID: &str = "request-id";

/// Answers. The status line is sent with the first token, so that what fails before has a status of its own.
pub(super) async fn respond(
    dispatcher: &Shared,
    (asked, hold): body::Read<Asked>,
    call: &Call,
) -> Result<Response, AnthropicError> {
    let Asked { request, stream } = asked;
    let answer = dispatcher.generate(&request, call).await.map_err(named)?;
    let head = Head { id: format!("msg_{}", uuid::Uuid::new_v4().simple()), model: request.model.clone() };
    let id = HeaderValue::from_str(&request.request_id).ok();
    drop((request, hold));
    let mut response = if stream {
        let (started, relayed) = answer.relayed();
        sse::stream(Body::from_stream(events(&head, &started, relayed)))
    } else {
        let completion = answer.complete().await.map_err(ApiError::from)?;
        let mut message = head.message(blocks(&completion), usage(completion.usage));
        (message["stop_reason"], message["stop_sequence"]) = stop(completion.reason(), &completion.stop);
        Json(message).into_response()
    };
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// A refusal, with Anthropic's name of the field that a worker refuses.
pub(super) fn named(refusal: Refusal) -> ApiError {
    let refused = Refused::of(&refusal);
    let mut error = ApiError::from(refusal);
    let Some(field) = refused.and_then(|refused| refused.field) else { return error };
    let own = if field == "stop" { "stop_sequences".to_owned() } else { tools::own(&field) };
    if let Some(rest) = error.body.message.strip_prefix(&field) {
        error.body.message = format!("{own}{rest}");
    }
    error
}

pub(super) struct Head {
    pub(super) id: String,
    pub(super) model: String,
}

impl Head {
    pub(super) fn message(&self, content: Value, usage: Value) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage,
        })
    }
}

/// Tokens as Anthropic counts them: those of the cache are no input tokens.
pub(super) fn usage(usage: Option<Usage>) -> Value {
    let usage = usage.unwrap_or_default();
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}

/// `stop_reason` and `stop_sequence`.
pub(super) fn stop(reason: FinishReason, sequence: &str) -> (Value, Value) {
    match reason {
        FinishReason::Length => ("max_tokens".into(), Value::Null),
        FinishReason::ToolCalls => ("tool_use".into(), Value::Null),
        _ if !sequence.is_empty() => ("stop_sequence".into(), sequence.into()),
        _ => ("end_turn".into(), Value::Null),
    }
}

/// Blocks of a whole answer. Without a call there is always a text.
fn blocks(completion: &Completion) -> Value {
    let mut blocks = Vec::new();
    if !completion.reasoning.is_empty() {
        blocks.push(json!({ "type": "thinking", "thinking": completion.reasoning, "signature": "" }));
    }
    if !completion.text.is_empty() || completion.tool_calls.is_empty() {
        blocks.push(json!({ "type": "text", "text": completion.text }));
    }
    for call in &completion.tool_calls {
        // An answer may end within the last call, as its reason tells; an input is an object all the same.
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        blocks.push(json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": input }));
    }
    blocks.into()
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::ToolCall;

    use super::*;

    #[test]
    fn reasons_have_anthropics_names() {
        assert_eq!(stop(FinishReason::Length, ""), ("max_tokens".into(), Value::Null));
        assert_eq!(stop(FinishReason::Stop, ""), ("end_turn".into(), Value::Null));
        assert_eq!(stop(FinishReason::ToolCalls, ""), ("tool_use".into(), Value::Null));
    }

    #[test]
    fn an_answer_is_its_blocks() {
        assert_eq!(blocks(&Completion::default()), json!([{ "type": "text", "text": "" }]));
        let call = ToolCall { id: "x".to_owned(), name: "f".to_owned(), arguments: "{\"a\":1}".to_owned() };
        let cut = ToolCall { arguments: "{\"a\":".to_owned(), ..call.clone() };
        let called = Completion { reasoning: "hm".to_owned(), tool_calls: vec![call, cut], ..Default::default() };
        let expected = json!([
            { "type": "thinking", "thinking": "hm", "signature": "" },
            { "type": "tool_use", "id": "x", "name": "f", "input": { "a": 1 } },
            { "type": "tool_use", "id": "x", "name": "f", "input": {} },
        ]);
        assert_eq!(blocks(&called), expected);
    }
}

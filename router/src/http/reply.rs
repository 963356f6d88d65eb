//! An answer in OpenAI's shape, whole or as a stream.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, header::HeaderName},
    response::{IntoResponse as _, Response},
};
use futures::future::try_join_all;
use serde_json::{Value, json};
use slm_proto::v1::{Completion, Expert, GenerateRequest, ToolCall};

use super::{
    Shared, body,
    choices::Choices,
    error::ApiError,
    head::{CompletionKind, Head, Usage, finish_reason},
    logprobs,
    params::ResponseOptions,
    sse,
};
use crate::{dispatch::Call, events::Answer};

const EXPERT: HeaderName = HeaderName::from_static("x-slm-expert");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a caller's own request id; longer ones are replaced.
const REQUEST_ID_MAX: usize = 128;

/// The caller's request id, or a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let given = given.filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// Answers one choice a request; their memory is free once workers have them. The status line is sent with the first token, so that what fails before it still has
/// an HTTP status of its own.
pub(super) async fn respond(
    dispatcher: &Shared,
    (requests, hold): body::Read<Vec<GenerateRequest>>,
    options: ResponseOptions,
    kind: CompletionKind,
    call: &Call,
) -> Result<Response, ApiError> {
    let answers = options.choices.begin(dispatcher, &requests, options.names, call).await?;
    let Some(request) = requests.first() else {
        return Err(ApiError::internal("internal: the request has no prompt"));
    };
    let head = Head::new(kind, request, answers.first().map(|answer| &answer.started), options);
    let id = request.request_id.clone();
    drop((requests, hold));
    let expert = answers.first().and_then(|answer| answer.started.expert.clone());
    let response = if options.stream {
        sse::response(head, answers, options)
    } else {
        let completions = try_join_all(answers.into_iter().map(Answer::complete)).await?;
        Json(head.whole(completions, options.choices)).into_response()
    };
    Ok(identified(response, expert.as_ref(), &id))
}

/// The response with the headers that name its expert and its request.
pub(super) fn identified(mut response: Response, expert: Option<&Expert>, id: &str) -> Response {
    for (name, value) in [(EXPERT, expert.map(|expert| expert.name.as_str())), (REQUEST_ID, Some(id))] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// What the assistant says and calls. Without a call there is always a text.
fn message(completion: &Completion) -> Value {
    let calls = &completion.tool_calls;
    let text = Some(&completion.text).filter(|text| calls.is_empty() || !text.is_empty());
    let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
    if !completion.reasoning.is_empty() {
        message["reasoning_content"] = completion.reasoning.as_str().into();
    }
    if !calls.is_empty() {
        let call = |call: &ToolCall| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        };
        message["tool_calls"] = calls.iter().map(call).collect();
    }
    message
}

/// The whole answer as one object.
impl Head {
    fn whole(&self, completions: Vec<Completion>, choices: Choices) -> Value {
        let mut usage = Usage::default();
        for (index, completion) in completions.iter().enumerate() {
            usage.add(completion.usage, completion.cost.as_ref(), index.is_multiple_of(choices.computed));
        }
        let completions = choices.chosen(completions);
        let choices: Vec<Value> =
            completions.iter().enumerate().map(|(index, completion)| self.choice(index, completion)).collect();
        let mut body = json!({
            "id": self.id,
            "object": match self.kind { CompletionKind::Chat => "chat.completion", CompletionKind::Text => "text_completion" },
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            "usage": usage,
        });
        if let Some(decision) = &self.decision {
            body["x_slm_decision"] = decision.clone();
        }
        if let Some(retrieval) = &self.retrieval {
            body["x_slm_retrieval"] = retrieval.clone();
        }
        body
    }

    fn choice(&self, index: usize, completion: &Completion) -> Value {
        let finish_reason = finish_reason(completion.reason());
        let tokens = self.logprobs.map(|names| (completion.logprobs.as_slice(), names));
        match self.kind {
            CompletionKind::Chat => json!({
                "index": index,
                "message": message(completion),
                "logprobs": tokens.map(|(tokens, names)| logprobs::chat(tokens, names)),
                "finish_reason": finish_reason,
            }),
            CompletionKind::Text => json!({
                "index": index,
                "text": completion.text,
                "logprobs": tokens.map(|(tokens, names)| logprobs::text(tokens, names, &mut 0)),
                "finish_reason": finish_reason,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_calls_and_thoughts_where_there_are_some() {
        let text = Completion { text: String::new(), ..Default::default() };
        assert_eq!(message(&text), json!({ "role": "assistant", "content": "", "refusal": null }));
        let call = ToolCall { id: "x".to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() };
        let called = Completion { reasoning: "hm".to_owned(), tool_calls: vec![call], ..Default::default() };
        let call = json!({ "id": "x", "type": "function", "function": { "name": "f", "arguments": "{}" } });
        let expected = json!({
            "role": "assistant", "content": null, "refusal": null, "reasoning_content": "hm", "tool_calls": [call],
        });
        assert_eq!(message(&called), expected);
    }
}

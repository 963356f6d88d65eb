//! An answer in OpenAI's shape, whole or as a stream.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, header::HeaderName},
    response::{IntoResponse as _, Response},
};
use futures::future::try_join_all;
use serde_json::{Value, json};
use slm_proto::v1::{Completion, GenerateRequest};

use super::{
    Shared, body,
    error::ApiError,
    head::{CompletionKind, Head, Usage, finish_reason},
    logprobs,
    params::ResponseOptions,
    sse,
};
use crate::{dispatch::Call, events::Answer};

pub(super) const EXPERT: HeaderName = HeaderName::from_static("x-slm-expert");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
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
    let names = options.names;
    let begun = requests.iter().enumerate().map(|(index, request)| async move {
        dispatcher.generate(request, call).await.map_err(|refusal| names.error(refusal, index))
    });
    let answers = try_join_all(begun).await?;
    let Some(request) = requests.first() else {
        return Err(ApiError::internal("internal: the request has no prompt"));
    };
    let head = Head::new(kind, request, answers.first().map(|answer| &answer.started), options);
    let id = request.request_id.clone();
    drop((requests, hold));
    let expert = answers.first().and_then(|answer| answer.started.expert.as_ref()).map(|expert| expert.name.clone());
    let mut response = if options.stream {
        sse::response(head, answers, options)
    } else {
        let completions = try_join_all(answers.into_iter().map(Answer::complete)).await?;
        Json(head.whole(&completions)).into_response()
    };
    for (name, value) in [(EXPERT, expert.as_deref()), (REQUEST_ID, Some(id.as_str()))] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// The whole answer as one object.
impl Head {
    fn whole(&self, completions: &[Completion]) -> Value {
        let mut usage = Usage::default();
        for completion in completions {
            usage.add(completion.usage);
        }
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
        body
    }

    fn choice(&self, index: usize, completion: &Completion) -> Value {
        let finish_reason = finish_reason(completion.reason());
        let tokens = self.logprobs.map(|names| (completion.logprobs.as_slice(), names));
        match self.kind {
            CompletionKind::Chat => json!({
                "index": index,
                "message": { "role": "assistant", "content": completion.text, "refusal": null },
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

//! An answer in OpenAI's words, whole or as a stream.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, header::HeaderName},
    response::{IntoResponse as _, Response},
};
use futures::future::try_join_all;
use serde::Serialize;
use serde_json::{Value, json};
use slm_proto::v1::{Completion, Decision, Expert, FinishReason, GenerateRequest, Started};

use super::{
    Shared,
    error::ApiError,
    logprobs::{self, TokenNames},
    params::Style,
    sse,
};
use crate::{dispatch::Call, events::Answer};

const EXPERT: HeaderName = HeaderName::from_static("x-slm-expert");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a caller's own request id; longer ones are replaced.
const REQUEST_ID_MAX: usize = 128;

/// Chat completion or completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Text,
}

/// What every object of one answer begins with.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) id: String,
    /// Unix seconds.
    pub(super) created: u64,
    /// What the caller named.
    pub(super) model: String,
    /// Digest of the version that answers: the same fingerprint, the same weights.
    pub(super) fingerprint: String,
    pub(super) decision: Option<Value>,
    /// How tokens of log-probabilities are called; `None` without any.
    pub(super) logprobs: Option<TokenNames>,
}

/// Tokens, as OpenAI counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
}

/// Of the prompt's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

impl Usage {
    pub(super) fn add(&mut self, usage: Option<slm_proto::v1::Usage>) {
        let usage = usage.unwrap_or_default();
        self.prompt_tokens += usage.prompt_tokens;
        self.completion_tokens += usage.completion_tokens;
        self.prompt_tokens_details.cached_tokens += usage.cached_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

/// The caller's request id, or a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let given = given.filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// Answers one choice a request. The status line is sent with the first token, so that what fails before it still has
/// an HTTP status of its own.
pub(super) async fn respond(
    dispatcher: &Shared,
    requests: Vec<GenerateRequest>,
    style: Style,
    kind: Kind,
    call: &Call,
) -> Result<Response, ApiError> {
    let names = style.names;
    let begun = requests.iter().enumerate().map(|(index, request)| async move {
        dispatcher.generate(request, call).await.map_err(|refusal| names.error(refusal, index))
    });
    let answers = try_join_all(begun).await?;
    let Some(request) = requests.first() else {
        return Err(ApiError::internal("a request without a prompt"));
    };
    let head = Head::new(kind, request, answers.first().map(|answer| &answer.started), style);
    let expert = answers.first().and_then(|answer| answer.started.expert.as_ref()).map(|expert| expert.name.clone());
    let mut response = if style.stream {
        sse::response(head, answers, style)
    } else {
        let completions = try_join_all(answers.into_iter().map(Answer::complete)).await?;
        Json(head.whole(&completions)).into_response()
    };
    for (name, value) in [(EXPERT, expert.as_deref()), (REQUEST_ID, Some(request.request_id.as_str()))] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

impl Head {
    fn new(kind: Kind, request: &GenerateRequest, started: Option<&Started>, style: Style) -> Self {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Text => "cmpl",
        };
        let expert = started.and_then(|started| started.expert.as_ref());
        let decision = started.and_then(|started| started.decision.as_ref()).filter(|_| style.explain);
        Self {
            kind,
            id: format!("{prefix}-{}", uuid::Uuid::new_v4().simple()),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            model: request.model.clone(),
            fingerprint: expert.map(|expert| expert.digest.clone()).unwrap_or_default(),
            decision: decision.map(decision_json),
            logprobs: request.logprobs.map(|_| if style.token_ids { TokenNames::Ids } else { TokenNames::Texts }),
        }
    }

    fn whole(&self, completions: &[Completion]) -> Value {
        let mut usage = Usage::default();
        for completion in completions {
            usage.add(completion.usage);
        }
        let choices: Vec<Value> =
            completions.iter().enumerate().map(|(index, completion)| self.choice(index, completion)).collect();
        let mut body = json!({
            "id": self.id,
            "object": match self.kind { Kind::Chat => "chat.completion", Kind::Text => "text_completion" },
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
            Kind::Chat => json!({
                "index": index,
                "message": { "role": "assistant", "content": completion.text, "refusal": null },
                "logprobs": tokens.map(|(tokens, names)| logprobs::chat(tokens, names)),
                "finish_reason": finish_reason,
            }),
            Kind::Text => json!({
                "index": index,
                "text": completion.text,
                "logprobs": tokens.map(|(tokens, names)| logprobs::text(tokens, names, &mut 0)),
                "finish_reason": finish_reason,
            }),
        }
    }
}

pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Unspecified => "stop",
    }
}

fn decision_json(decision: &Decision) -> Value {
    let expert = |expert: &Option<Expert>| {
        expert.as_ref().map(|expert| {
            let kind = match expert.kind() {
                slm_proto::v1::ExpertKind::LoraAdapter => "LoraAdapter",
                _ => "SlmModel",
            };
            json!({ "kind": kind, "name": expert.name, "model": expert.model, "digest": expert.digest })
        })
    };
    let candidates = decision.candidates.iter().map(|candidate| {
        let outcome = candidate.outcome().as_str_name().trim_start_matches("CANDIDATE_OUTCOME_").to_lowercase();
        json!({ "expert": expert(&candidate.expert), "rule": candidate.rule, "outcome": outcome, "why_not": candidate.why_not })
    });
    json!({
        "requested": decision.requested,
        "route": decision.route,
        "chosen": expert(&decision.chosen),
        "reason": decision.reason,
        "worker": decision.worker,
        "candidates": candidates.collect::<Vec<_>>(),
    })
}

//! The common part of a whole answer and of a streamed one: the head of each object, and usage.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use slm_proto::{
    json,
    v1::{FinishReason, GenerateRequest, Started},
};

use super::{logprobs::TokenNames, params::ResponseOptions};

/// Chat completion or completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompletionKind {
    Chat,
    Text,
}

/// The head of every object of one answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) kind: CompletionKind,
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: u64,
    /// The name in the request.
    pub(crate) model: String,
    /// Digest of the version that answers: the same fingerprint, the same weights.
    pub(crate) fingerprint: String,
    pub(crate) decision: Option<Value>,
    /// Citations of what the route put into the conversation.
    pub(crate) retrieval: Option<Value>,
    /// Token names of log-probabilities; `None` without any.
    pub(super) logprobs: Option<TokenNames>,
}

/// Tokens, as OpenAI counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
    /// Cost of a model outside, in its price's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
}

/// Of the prompt's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

impl Usage {
    /// A prompt counts once, with its first answer.
    pub(crate) fn add(
        &mut self,
        usage: Option<slm_proto::v1::Usage>,
        cost: Option<&slm_proto::v1::Cost>,
        is_first: bool,
    ) {
        if let Some(cost) = cost {
            *self.cost.get_or_insert(0.0) += cost.amount;
        }
        let usage = usage.unwrap_or_default();
        if is_first {
            self.prompt_tokens += usage.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += usage.cached_tokens;
        }
        self.completion_tokens += usage.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

impl Head {
    pub(crate) fn new(
        kind: CompletionKind,
        request: &GenerateRequest,
        started: Option<&Started>,
        options: ResponseOptions,
    ) -> Self {
        let prefix = match kind {
            CompletionKind::Chat => "chatcmpl",
            CompletionKind::Text => "cmpl",
        };
        let expert = started.and_then(|started| started.expert.as_ref());
        let decision = started.and_then(|started| started.decision.as_ref()).filter(|_| options.explain);
        Self {
            kind,
            id: format!("{prefix}-{}", uuid::Uuid::new_v4().simple()),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            model: request.model.clone(),
            fingerprint: expert.map(|expert| expert.digest.clone()).unwrap_or_default(),
            decision: decision.map(json::decision),
            retrieval: started.and_then(|started| started.retrieval.as_ref()).map(json::retrieval),
            logprobs: request.logprobs.map(|_| if options.token_ids { TokenNames::Ids } else { TokenNames::Texts }),
        }
    }
}

pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::Stop | FinishReason::Unspecified => "stop",
    }
}

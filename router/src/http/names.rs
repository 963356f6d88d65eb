//! Names of fields in refusals: a worker names fields of `slm.v1`, the caller knows those of OpenAI.

use super::{
    error::{ApiError, Refused},
    head::CompletionKind,
};
use crate::refusal::Refusal;

/// The caller's names of the fields of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldNames {
    pub(crate) kind: CompletionKind,
    /// The prompt or the conversation: `prompt`, `messages`, or what another API calls it.
    pub(crate) input: &'static str,
    /// `max_tokens`, or its newer name.
    pub(crate) max_tokens: &'static str,
    /// What the constraint was given as.
    pub(crate) constraint: &'static str,
    /// Whether `prompt` was a list of prompts.
    pub(crate) several: bool,
    /// Whether a tool's name and parameters stand beside its type, not within `function`.
    pub(crate) tools_are_flat: bool,
}

impl FieldNames {
    pub(crate) fn new(kind: CompletionKind) -> Self {
        let input = match kind {
            CompletionKind::Chat => "messages",
            CompletionKind::Text => "prompt",
        };
        let (max_tokens, constraint) = ("max_tokens", "response_format");
        Self { kind, input, max_tokens, constraint, several: false, tools_are_flat: false }
    }

    /// A refusal of the request's prompt of that number, in the caller's words.
    pub(crate) fn error(&self, refusal: Refusal, prompt: usize) -> ApiError {
        let refused = Refused::of(&refusal);
        let mut error = ApiError::from(refusal);
        let Some(refused) = refused else { return error };
        let input = self.input(prompt);
        match refused.reason.as_deref() {
            Some("NoTokenizer") => {
                let message = "has no tokenizer: send lists of token ids as `prompt` to /v1/completions";
                error.body.message = about_model(&error.body.message, message);
                error.body.param = Some(input);
            }
            Some("NoChatTemplate") => {
                let message = "has no chat template: send a `prompt` to /v1/completions";
                error.body.message = about_model(&error.body.message, message);
                error.body.param = Some(input);
            }
            Some("Empty") => {
                error.body.message = format!("`{input}` is empty; send a text to continue");
                error.body.param = Some(input);
            }
            _ if refused.is_too_long => error.body.param = Some(input),
            _ => {
                let Some(field) = refused.field else { return error };
                let own = self.own(&field, &input);
                // Such a message begins with its field.
                if let Some(rest) = error.body.message.strip_prefix(&field) {
                    error.body.message = format!("{own}{rest}");
                }
                error.body.param = Some(own);
            }
        }
        error
    }

    fn input(&self, prompt: usize) -> String {
        if self.several { format!("{}[{prompt}]", self.input) } else { self.input.to_owned() }
    }

    fn own(&self, field: &str, input: &str) -> String {
        match field {
            "max_tokens" => self.max_tokens.to_owned(),
            "logprobs" if self.kind == CompletionKind::Chat => "top_logprobs".to_owned(),
            "prompt" | "messages" => input.to_owned(),
            "json_schema" | "json_object" | "regex" | "grammar" | "choice" => self.constraint.to_owned(),
            // Items there are others than messages here.
            _ if self.tools_are_flat && field.starts_with("messages[") => input.to_owned(),
            _ if self.tools_are_flat => field.to_owned(),
            "tool_choice.name" => "tool_choice.function.name".to_owned(),
            _ => match field.strip_prefix("token_ids") {
                Some(index) => format!("{input}{index}"),
                None => in_function(field),
            },
        }
    }
}

/// A field of a tool, or of a call: in OpenAI's shape it is one of its function.
pub(super) fn in_function(field: &str) -> String {
    match field.rsplit_once("].") {
        Some((item, name)) if item.starts_with("tools[") || item.contains(".tool_calls[") => {
            format!("{item}].function.{name}")
        }
        _ => field.to_owned(),
    }
}

/// ``model `m` …`` with other words after the name.
fn about_model(message: &str, words: &str) -> String {
    let name = message.split('`').nth(1).unwrap_or_default();
    format!("model `{name}` {words}")
}

#[cfg(test)]
mod tests {
    use slm_proto::trailers;
    use tonic::Status;

    use super::*;

    fn refusal(message: &str, field: &str, reason: &str) -> Refusal {
        let mut status = Status::invalid_argument(message);
        let mut put = |key: &'static str, value: &str| {
            if !value.is_empty() {
                status.metadata_mut().insert(key, value.parse().expect("a word"));
            }
        };
        put(trailers::ERROR_FIELD, field);
        put(trailers::REASON, reason);
        if reason == "ContextLengthExceeded" {
            put(trailers::ERROR_CODE, trailers::CONTEXT_LENGTH_EXCEEDED);
        }
        Refusal::Worker(status)
    }

    #[test]
    fn fields_have_the_names_that_the_caller_used() {
        let chat = FieldNames { max_tokens: "max_completion_tokens", ..FieldNames::new(CompletionKind::Chat) };
        let text = FieldNames::new(CompletionKind::Text);
        let several = FieldNames { several: true, ..text };
        let cases = [
            (
                chat,
                ("max_tokens is 0; at least 1", "max_tokens", "OutOfRange"),
                "max_completion_tokens",
                "max_completion_tokens is 0",
            ),
            (chat, ("logprobs is 21; at most 20", "logprobs", "OutOfRange"), "top_logprobs", "top_logprobs is 21"),
            (text, ("logprobs is 21; at most 20", "logprobs", "OutOfRange"), "logprobs", "logprobs is 21"),
            (text, ("token_ids[3] is 9; ends at 5", "token_ids[3]", "TokenId"), "prompt[3]", "prompt[3] is 9"),
            (several, ("token_ids[3] is 9; ends at 5", "token_ids[3]", "TokenId"), "prompt[1][3]", "prompt[1][3] is 9"),
            (
                chat,
                ("presence_penalty is 3", "presence_penalty", "OutOfRange"),
                "presence_penalty",
                "presence_penalty is 3",
            ),
            (chat, ("the prompt has 9 tokens", "", "ContextLengthExceeded"), "messages", "the prompt has 9 tokens"),
            (several, ("the prompt has 9 tokens", "", "ContextLengthExceeded"), "prompt[1]", "the prompt has 9 tokens"),
            (chat, ("messages: no", "messages", "ChatTemplate"), "messages", "messages: no"),
            (
                chat,
                ("model `m` has no tokenizer; send token_ids", "", "NoTokenizer"),
                "messages",
                "model `m` has no tokenizer: send lists",
            ),
            (
                chat,
                ("model `m` has no chat template; send", "messages", "NoChatTemplate"),
                "messages",
                "to /v1/completions",
            ),
            (
                FieldNames { constraint: "guided_json", ..chat },
                ("json_schema at /not: `not` is not supported", "json_schema", "Constraint"),
                "guided_json",
                "guided_json at /not: `not` is not",
            ),
            (
                chat,
                ("tools[1].parameters at /not: no", "tools[1].parameters", "Constraint"),
                "tools[1].function.parameters",
                "tools[1].function.parameters at /not: no",
            ),
            (chat, ("tools has 200 entries", "tools", "OutOfRange"), "tools", "tools has 200"),
            (
                chat,
                ("messages[2].tool_calls[0].arguments no", "messages[2].tool_calls[0].arguments", "Tools"),
                "messages[2].tool_calls[0].function.arguments",
                "function.arguments no",
            ),
            (
                chat,
                ("messages[2].tool_call_id is", "messages[2].tool_call_id", "Tools"),
                "messages[2].tool_call_id",
                "_id is",
            ),
            (
                chat,
                ("tool_choice.name is", "tool_choice.name", "Tools"),
                "tool_choice.function.name",
                "function.name is",
            ),
            (text, ("the request has no prompt; send", "prompt", "Empty"), "prompt", "`prompt` is empty"),
        ];
        for (names, (message, field, reason), param, words) in cases {
            let error = names.error(refusal(message, field, reason), 1);
            assert_eq!(error.body.param.as_deref(), Some(param), "{message}");
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }

    #[test]
    fn other_apis_have_other_names() {
        let several = FieldNames { several: true, ..FieldNames::new(CompletionKind::Text) };
        let tensor = FieldNames { input: "text_input", ..several };
        let items = FieldNames { input: "input", tools_are_flat: true, ..FieldNames::new(CompletionKind::Chat) };
        for (names, (message, field, reason), param, words) in [
            (tensor, ("the request has no prompt", "prompt", "Empty"), "text_input[1]", "`text_input[1]` is empty"),
            (items, ("messages[2].tool_call_id is", "messages[2].tool_call_id", "Tools"), "input", "input is"),
            (items, ("tools[1].name is `f`", "tools[1].name", "Tools"), "tools[1].name", "tools[1].name is"),
            (items, ("tool_choice.name is", "tool_choice.name", "Tools"), "tool_choice.name", "tool_choice.name is"),
        ] {
            let error = names.error(refusal(message, field, reason), 1);
            assert_eq!(error.body.param.as_deref(), Some(param), "{message}");
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }

    #[test]
    fn other_refusals_stay_as_they_are() {
        let error = FieldNames::new(CompletionKind::Chat).error(Refusal::NoModel, 0);
        assert_eq!(error.body.param.as_deref(), Some("model"));
    }
}

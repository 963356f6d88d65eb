//! Input of a request, checked before any work is done for it.

use std::sync::Arc;

use slm_convert::chat::{Conversation, PromptEnd};
use slm_proto::v1::{self, generate_request};

use crate::{
    text::{Input, TokenBytes},
    tools::{self, ToolsError},
};

/// Bound on the messages of a conversation; lower if the context has fewer tokens, since each message takes at least
/// one.
const MESSAGES_MAX: usize = 4096;
/// Bound on the bytes of a tenant's name.
const TENANT_BYTES_MAX: usize = 256;
/// Larger prompts are tokenised off the network threads.
const INLINE_BYTES_MAX: usize = 4096;
const INLINE_MESSAGES_MAX: usize = 32;

/// A request that is refused before tokenising.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InputError {
    /// No input.
    #[error("{field} is missing; {expected}")]
    Missing { field: &'static str, expected: &'static str },
    /// More text than fits the context with any tokenizer.
    #[error(
        "the prompt has {bytes} bytes, which are {tokens_min} tokens at least; the context of `{model}` is {context_length}, \
         prompt and answer together"
    )]
    TooLong { bytes: usize, tokens_min: usize, context_length: usize, model: String },
    /// Too many messages.
    #[error("messages has {found} entries; at most {most} fit the context of `{model}`")]
    Messages { found: usize, most: usize, model: String },
    /// The tenant's name is too long.
    #[error("tenant has {0} bytes; it must be at most {TENANT_BYTES_MAX}")]
    Tenant(usize),
    /// A field that the other fields leave no room for.
    #[error("{field} {why}")]
    Conflict { field: &'static str, why: &'static str },
    /// A message about tools is wrong.
    #[error(transparent)]
    Tools(#[from] ToolsError),
}

/// Bounds on a prompt.
#[derive(Debug, Clone, Copy)]
pub(super) struct PromptBounds<'a> {
    /// Name for messages.
    pub(super) model: &'a str,
    /// Context length, prompt and answer together.
    pub(super) context_length: usize,
    /// Most bytes of a token; `None` without a tokenizer.
    pub(super) token_bytes_max: Option<usize>,
}

/// The tenant, within which the prefix cache is shared and among which places are divided.
pub(super) fn tenant(name: &str) -> Result<Arc<str>, InputError> {
    if name.len() > TENANT_BYTES_MAX { Err(InputError::Tenant(name.len())) } else { Ok(name.into()) }
}

/// Takes the input of `request`, if it may fit.
pub(super) fn input(request: &mut v1::GenerateRequest, bounds: PromptBounds<'_>) -> Result<Input, InputError> {
    let missing = |field, expected| Err(InputError::Missing { field, expected });
    let asked = request.input.take();
    check_options(request, asked.as_ref())?;
    match asked {
        None => missing("input", "send messages, prompt or token_ids"),
        Some(generate_request::Input::Prompt(prefix)) if !request.suffix.is_empty() => {
            let suffix = std::mem::take(&mut request.suffix);
            bounds.check_bytes(prefix.len() + suffix.len())?;
            Ok(Input::Infill { prefix, suffix })
        }
        Some(generate_request::Input::Prompt(text)) => {
            bounds.check_bytes(text.len())?;
            Ok(Input::Prompt(text))
        }
        Some(generate_request::Input::TokenIds(ids)) => Ok(Input::TokenIds(ids.ids)),
        Some(generate_request::Input::Messages(messages)) => {
            let messages = messages.messages;
            let (found, most) = (messages.len(), MESSAGES_MAX.min(bounds.context_length));
            if found == 0 {
                return missing("messages", "send at least one");
            }
            if found > most {
                return Err(InputError::Messages { found, most, model: bounds.model.to_owned() });
            }
            bounds.check_bytes(messages.iter().map(|message| message.role.len() + message.content.len()).sum())?;
            let end = match (request.continue_final_message, request.add_generation_prompt) {
                (true, _) => PromptEnd::Open,
                (false, Some(false)) => PromptEnd::Message,
                (false, _) => PromptEnd::Answer,
            };
            Ok(Input::Messages(Box::new(Conversation { end, ..Conversation::new(tools::conversation(messages)?) })))
        }
    }
}

/// Options that are for some kinds of input only.
fn check_options(request: &v1::GenerateRequest, asked: Option<&generate_request::Input>) -> Result<(), InputError> {
    use generate_request::Input::{Messages, Prompt, TokenIds};
    let conflict = |field, why| Err(InputError::Conflict { field, why });
    match asked {
        Some(Messages(_)) if request.echo => {
            conflict("echo", "is for prompt and token_ids; leave it out with messages")
        }
        Some(Messages(_) | TokenIds(_)) if !request.suffix.is_empty() => {
            conflict("suffix", "is for prompt; leave it out, or send the text before it as prompt")
        }
        Some(Messages(_)) if request.continue_final_message && request.add_generation_prompt == Some(true) => {
            conflict("continue_final_message", "excludes add_generation_prompt; choose one of them")
        }
        Some(Prompt(_) | TokenIds(_)) if request.continue_final_message => {
            conflict("continue_final_message", "is for messages; leave it out")
        }
        Some(Prompt(_) | TokenIds(_)) if request.add_generation_prompt.is_some() => {
            conflict("add_generation_prompt", "is for messages; leave it out")
        }
        _ => Ok(()),
    }
}

impl PromptBounds<'_> {
    fn check_bytes(self, bytes: usize) -> Result<(), InputError> {
        let Some(token_bytes_max) = self.token_bytes_max else { return Ok(()) };
        let tokens_min = bytes.div_ceil(token_bytes_max.max(1));
        if tokens_min < self.context_length {
            return Ok(());
        }
        let model = self.model.to_owned();
        Err(InputError::TooLong { bytes, tokens_min, context_length: self.context_length, model })
    }
}

/// Whether tokenising is faster than a hand-over to another thread.
pub(super) fn is_short(input: &Input) -> bool {
    match input {
        Input::Messages(conversation) => {
            let messages = &conversation.messages;
            let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
            let has_calls = || messages.iter().any(|message| !message.tool_calls.is_empty());
            let is_plain = conversation.tools.is_empty() && !has_calls();
            is_plain && messages.len() <= INLINE_MESSAGES_MAX && bytes <= INLINE_BYTES_MAX
        }
        Input::Prompt(text) => text.len() <= INLINE_BYTES_MAX,
        Input::Infill { prefix, suffix } => prefix.len() + suffix.len() <= INLINE_BYTES_MAX,
        Input::TokenIds(_) => true,
    }
}

/// Most bytes that a token of the vocabulary stands for.
pub(crate) fn token_bytes_max(bytes: &TokenBytes, tokenizer: &tokenizers::Tokenizer) -> usize {
    // Special tokens add no bytes to an answer, but their text may appear in a prompt.
    let named = tokenizer.get_added_tokens_decoder().values().map(|token| token.content.len()).max();
    let vocabulary = tokenizer.get_vocab_size(true) as u32;
    (0..vocabulary).map(|id| bytes.get(id).len()).max().max(named).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: PromptBounds<'_> = PromptBounds { model: "tiny", context_length: 100, token_bytes_max: Some(8) };

    fn messages(all: impl IntoIterator<Item = (String, String)>) -> Option<generate_request::Input> {
        let messages =
            all.into_iter().map(|(role, content)| v1::Message { role, content, ..Default::default() }).collect();
        Some(generate_request::Input::Messages(v1::Messages { messages }))
    }

    fn input(asked: Option<generate_request::Input>, bounds: PromptBounds<'_>) -> Result<Input, InputError> {
        super::input(&mut v1::GenerateRequest { input: asked, ..Default::default() }, bounds)
    }

    fn refusal(asked: Option<generate_request::Input>) -> String {
        input(asked, BOUNDS).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_fit_is_refused_before_it_is_looked_at() {
        let text = |bytes| Some(generate_request::Input::Prompt("x".repeat(bytes)));
        assert!(input(text(99 * 8), BOUNDS).is_ok(), "99 tokens and one of an answer");
        assert_eq!(
            refusal(text(99 * 8 + 1)),
            "the prompt has 793 bytes, which are 100 tokens at least; the context of `tiny` is 100, prompt and answer together"
        );
        assert!(refusal(messages([("user".into(), "x".repeat(800))])).contains("which are 101 tokens at least"));
        assert!(refusal(messages([("x".repeat(800), String::new())])).contains("tokens at least"), "roles count, too");
        let empty = |count| messages((0..count).map(|_| (String::new(), String::new())));
        assert_eq!(refusal(empty(101)), "messages has 101 entries; at most 100 fit the context of `tiny`");
        assert!(input(empty(100), BOUNDS).is_ok());
        let long = PromptBounds { context_length: 1 << 20, ..BOUNDS };
        assert!(input(empty(MESSAGES_MAX + 1), long).unwrap_err().to_string().contains("at most 4096 fit"));
        assert!(
            input(text(1 << 22), PromptBounds { token_bytes_max: None, ..BOUNDS }).is_ok(),
            "refused for want of a tokenizer"
        );
        assert_eq!(refusal(messages([])), "messages is missing; send at least one");
        assert_eq!(refusal(None), "input is missing; send messages, prompt or token_ids");
    }

    #[test]
    fn many_empty_messages_are_no_short_work() {
        let short = |asked| is_short(&input(asked, PromptBounds { context_length: 10_000, ..BOUNDS }).unwrap());
        assert!(short(messages([("user".into(), "hi".into())])));
        assert!(!short(messages((0..33).map(|_| (String::new(), String::new())))));
        assert!(!short(Some(generate_request::Input::Prompt("x".repeat(4097)))));
    }

    #[test]
    fn tenants_have_names_of_bounded_length() {
        assert_eq!(&*tenant("").unwrap(), "");
        assert_eq!(tenant(&"x".repeat(257)), Err(InputError::Tenant(257)));
    }

    #[test]
    fn options_of_another_kind_of_input_are_refused() {
        let conversation = || messages([("user".into(), "hi".into())]);
        let text = || Some(generate_request::Input::Prompt("x".into()));
        let none = v1::GenerateRequest::default;
        let suffix = || v1::GenerateRequest { suffix: "y".into(), ..none() };
        let echo = || v1::GenerateRequest { echo: true, ..none() };
        let open = || v1::GenerateRequest { continue_final_message: true, ..none() };
        for (input, request, message) in [
            (conversation(), suffix(), "suffix is for prompt"),
            (conversation(), echo(), "echo is for prompt and token_ids"),
            (text(), open(), "continue_final_message is for messages"),
            (text(), v1::GenerateRequest { add_generation_prompt: Some(true), ..none() }, "is for messages"),
            (
                conversation(),
                v1::GenerateRequest { add_generation_prompt: Some(true), ..open() },
                "excludes add_generation",
            ),
        ] {
            let refused = super::input(&mut v1::GenerateRequest { input, ..request }, BOUNDS).unwrap_err().to_string();
            assert!(refused.contains(message), "{refused}");
        }
        let asked = super::input(&mut v1::GenerateRequest { input: text(), ..suffix() }, BOUNDS);
        assert!(matches!(asked, Ok(Input::Infill { prefix, suffix }) if prefix == "x" && suffix == "y"));
    }
}

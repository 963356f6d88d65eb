//! The prompt of a request, from its input to its tokens.

use std::sync::Arc;

use slm_proto::v1;
use tonic::Status;

use super::{
    Shared,
    input::{self, PromptBounds},
    plan::Plan,
};
use crate::{
    adapters::AdapterVersion,
    model::Generator,
    text::{Input, Reading},
};

/// An input that may fit, and how it is read.
pub(super) struct Prompt {
    input: Input,
    parse_special_tokens: Option<bool>,
    add_special_tokens: Option<bool>,
    adapter: Option<Arc<AdapterVersion>>,
}

impl Prompt {
    /// Takes it from `request`, with how an answer to messages is read.
    pub(super) fn take(
        request: &mut v1::GenerateRequest,
        adapter: Option<Arc<AdapterVersion>>,
        generator: &Generator,
        model: &str,
    ) -> Result<(Self, Option<Plan>), Status> {
        let bounds = PromptBounds {
            model,
            context_length: generator.limits.context_length,
            token_bytes_max: generator.token_bytes_max,
        };
        let mut input = input::input(request, bounds)?;
        let own = adapter.as_ref().and_then(|version| version.info.chat.template.as_ref());
        let plan = Plan::new(request, &mut input, generator.prompter.template(own))?;
        let (parse_special_tokens, add_special_tokens) = (request.parse_special_tokens, request.add_special_tokens);
        Ok((Self { input, parse_special_tokens, add_special_tokens, adapter }, plan))
    }

    /// Its text as the caller wrote it; `None` for messages, and for token ids.
    pub(super) fn text(&self) -> Option<String> {
        match &self.input {
            Input::Prompt(text) | Input::Infill { prefix: text, .. } => Some(text.clone()),
            Input::Messages(_) | Input::TokenIds(_) => None,
        }
    }

    /// Ids that end an answer to it, besides those of the model.
    pub(super) fn ends(&self, generator: &Generator) -> Vec<u32> {
        match &self.input {
            Input::Infill { .. } => generator.prompter.infill_ends(),
            Input::Messages(_) | Input::Prompt(_) | Input::TokenIds(_) => Vec::new(),
        }
    }

    /// Its tokens, made on the threads for long prompts unless it is short; `of` sees the input before.
    pub(super) async fn read<T: Send + 'static>(
        self,
        shared: &Shared,
        tenant: &Arc<str>,
        of: impl FnOnce(&Generator, &Input, Reading<'_>) -> Result<T, Status> + Send + 'static,
    ) -> Result<(Vec<u32>, T), Status> {
        let short = input::is_short(&self.input);
        let (worker, tenant) = (shared.clone(), Arc::clone(tenant));
        let read = move || {
            let Self { input, adapter, parse_special_tokens, add_special_tokens, .. } = self;
            let template = adapter.as_ref().and_then(|version| version.info.chat.template.as_ref());
            let reading = Reading { parse_special_tokens, add_special_tokens, template };
            let generator = worker.generator()?;
            let seen = of(generator, &input, reading)?;
            Ok((generator.prompter.tokens(input, reading, &worker.model.name)?, seen))
        };
        if short {
            return read();
        }
        let tokens = shared.text.run(&tenant, read).await;
        tokens.map_err(|error| Status::internal(error.to_string()))?
    }
}

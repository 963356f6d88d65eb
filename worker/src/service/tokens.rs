//! `slm.v1.Tokens`: the tokens of prompts and the text of tokens.

use std::sync::Arc;

use slm_listen::deadline::Deadline;
use slm_proto::v1::{self, TokenPiece, generate_request::Input as Asked, tokens_server::Tokens};
use tonic::{Request, Response, Status};

use super::{Shared, generation::within, input, prompt::Prompt, status};
use crate::{
    embed::TextError,
    model::{Generator, Work},
    text::{Input, PromptError, Reading, decode},
};

pub(crate) struct Tokenize(pub(crate) Shared);

#[tonic::async_trait]
impl Tokens for Tokenize {
    async fn tokenize(&self, request: Request<v1::TokenizeRequest>) -> Result<Response<v1::TokenizeResponse>, Status> {
        let deadline = Deadline::of(&request).map(Into::into);
        let v1::TokenizeRequest { request, pieces } = request.into_inner();
        let mut request = request.ok_or_else(|| status::missing("request", "send the one whose prompt is meant"))?;
        let tenant = input::tenant(&request.tenant)?;
        let adapter = self.0.expert(&request.model)?;
        let expert = self.0.describe(adapter.as_deref());
        let work = async {
            // What waits holds its message only.
            let _permit = self.permit().await?;
            match &self.0.model.work {
                Work::Generate(generator) => {
                    let (prompt, _) = Prompt::take(&mut request, adapter, generator, &self.0.model.name)?;
                    prompt.read(&self.0, &tenant, text).await
                }
                Work::Encode(_) => self.encoded(&mut request, &tenant).await,
            }
        };
        let (token_ids, text) = within(deadline, work).await?;
        let pieces = if pieces { token_ids.iter().map(|&id| self.piece(id)).collect() } else { Vec::new() };
        let context_length = match &self.0.model.work {
            Work::Generate(generator) => generator.limits.context_length,
            Work::Encode(encoder) => encoder.embedder.context_length(),
        };
        Ok(Response::new(v1::TokenizeResponse {
            token_ids,
            pieces,
            text,
            context_length: context_length as u32,
            expert: Some(expert),
            request_id: request.request_id,
        }))
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        let deadline = Deadline::of(&request).map(Into::into);
        let v1::DetokenizeRequest { model, token_ids, request_id, tenant, .. } = request.into_inner();
        let tenant = input::tenant(&tenant)?;
        let expert = self.0.describe(self.0.expert(&model)?.as_deref());
        let shared = self.0.clone();
        let decode = move || Ok(decode(shared.model.tokenizer(), &token_ids, &shared.model.name)?);
        let work = async {
            let _permit = self.permit().await?;
            self.0.text.run(&tenant, decode).await.map_err(|error| Status::internal(error.to_string()))?
        };
        let text = within(deadline, work).await?;
        Ok(Response::new(v1::DetokenizeResponse { text, expert: Some(expert), request_id }))
    }
}

impl Tokenize {
    async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Status> {
        self.0.tokenizing.acquire().await.map_err(|_| status::draining())
    }

    /// Tokens of a text as an encoder reads it, and the text.
    async fn encoded(
        &self,
        request: &mut v1::GenerateRequest,
        tenant: &Arc<str>,
    ) -> Result<(Vec<u32>, String), Status> {
        let given = [
            ("parse_special_tokens", request.parse_special_tokens == Some(false)),
            ("suffix", !request.suffix.is_empty()),
            ("echo", request.echo),
        ];
        if let Some((field, _)) = given.iter().find(|(_, given)| *given) {
            return Err(status::for_generation(field, &self.0.model.name));
        }
        let (asked, around) = (request.input.take(), request.add_special_tokens.unwrap_or(true));
        let shared = self.0.clone();
        let read = move || {
            let model = shared.model.name.clone();
            let Work::Encode(encoder) = &shared.model.work else {
                return Err(PromptError::NoTokenizer { model }.into());
            };
            let refused = |error: &TextError| status::refused_text("prompt", error);
            match asked {
                None => Err(status::missing("input", "send prompt or token_ids")),
                Some(Asked::Messages(_)) => Err(status::no_messages(&model)),
                Some(Asked::TokenIds(ids)) => {
                    let tokens = encoder.texts.given(ids.ids, false).map_err(|error| refused(&error))?;
                    Ok((tokens.ids, String::new()))
                }
                Some(Asked::Prompt(text)) => {
                    let ids = encoder.texts.counted(&text, around).map_err(|error| refused(&error))?;
                    Ok((ids, text))
                }
            }
        };
        self.0.text.run(tenant, read).await.map_err(|error| Status::internal(error.to_string()))?
    }

    fn piece(&self, id: u32) -> TokenPiece {
        let model = &self.0.model;
        let token = model.tokenizer().and_then(|tokenizer| tokenizer.id_to_token(id)).unwrap_or_default();
        let bytes = match &model.work {
            Work::Generate(generator) => generator.token_bytes.as_ref().map(|bytes| bytes.get(id).to_vec()),
            Work::Encode(_) => Some(token.clone().into_bytes()),
        };
        TokenPiece { token, bytes: bytes.unwrap_or_default() }
    }
}

/// What a prompt is as text.
fn text(generator: &Generator, input: &Input, reading: Reading<'_>) -> Result<String, Status> {
    Ok(match input {
        Input::Messages(conversation) => match generator.prompter.template(reading.template) {
            Some(template) => template.prompt(conversation).map_err(PromptError::from)?,
            // Without a template the prompt is refused.
            None => String::new(),
        },
        Input::Prompt(text) => text.clone(),
        Input::Infill { .. } | Input::TokenIds(_) => String::new(),
    })
}

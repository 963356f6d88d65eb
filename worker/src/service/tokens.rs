//! `slm.v1.Tokens`: the tokens of prompts and the text of tokens.

use slm_listen::deadline::Deadline;
use slm_proto::v1::{self, TokenPiece, tokens_server::Tokens};
use tonic::{Request, Response, Status};

use super::{Shared, generation::within, input, prompt::Prompt, status};
use crate::{
    model::Generator,
    text::{Input, Reading},
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
        let generator = self.0.generator()?;
        let expert = self.0.describe(adapter.as_deref());
        let work = async {
            // One at a time for each thread: what waits holds its message only.
            let _permit = self.permit().await?;
            Prompt::take(&mut request, adapter, generator, &self.0.model.name)?.read(&self.0, &tenant, text).await
        };
        let (token_ids, text) = within(deadline, work).await?;
        let pieces = if pieces { token_ids.iter().map(|&id| piece(generator, id)).collect() } else { Vec::new() };
        Ok(Response::new(v1::TokenizeResponse {
            token_ids,
            pieces,
            text,
            context_length: generator.limits.context_length as u32,
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
        self.0.generator()?;
        let shared = self.0.clone();
        let decode = move || Ok(shared.generator()?.prompter.decode(&token_ids, &shared.model.name)?);
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
}

/// What a prompt is as text.
fn text(generator: &Generator, input: &Input, reading: Reading<'_>) -> Result<String, Status> {
    Ok(match input {
        Input::Messages(conversation) => match generator.prompter.template(reading.template) {
            Some(template) => template.prompt(conversation).map_err(crate::text::PromptError::from)?,
            // Without a template the prompt is refused.
            None => String::new(),
        },
        Input::Prompt(text) => text.clone(),
        Input::Infill { .. } | Input::TokenIds(_) => String::new(),
    })
}

fn piece(generator: &Generator, id: u32) -> TokenPiece {
    let token = generator.prompter.tokenizer().and_then(|tokenizer| tokenizer.id_to_token(id)).unwrap_or_default();
    let bytes = generator.token_bytes.as_ref().map(|bytes| bytes.get(id).to_vec()).unwrap_or_default();
    TokenPiece { token, bytes }
}

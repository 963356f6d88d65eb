//! `slm.v1.Embeddings`: validates, tokenises and submits texts, and returns their vectors.

use std::{sync::Arc, time::Instant};

use slm_listen::deadline::Deadline;
use slm_proto::v1::{self, embed_input::Input, embeddings_server::Embeddings};
use tonic::{Request, Response, Status};

use super::{Shared, generation::within, input, status};
use crate::{
    embed::{Job, TextReader},
    engine::StepFailure,
    model::{Embedding, Work},
};

/// Bound on the inputs of a request, as OpenAI has it.
const INPUTS_MAX: usize = 2048;
/// Larger requests are tokenised off the network threads.
const INLINE_BYTES_MAX: usize = 4096;

pub(crate) struct Embed(pub(crate) Shared);

#[tonic::async_trait]
impl Embeddings for Embed {
    async fn embed(&self, request: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        if *self.0.draining.borrow() {
            return Err(status::draining());
        }
        let deadline = Deadline::of(&request).map(Into::into);
        let request = request.into_inner();
        let tenant = input::tenant(&request.tenant)?;
        // Fixes the version: later loads of this name affect only later requests.
        let adapter = self.0.expert(&request.model)?;
        let Embedding { embedder, .. } = embedding(&self.0)?;
        // Before any work, so that a request without a place costs nothing.
        let permit = embedder.enter(&tenant, request.priority)?;
        let dimensions = dimensions(request.dimensions, embedder.width())?;
        check_inputs(request.inputs.len())?;
        let expert = self.0.describe(adapter.as_deref());
        let texts = within(deadline, self.tokens(request.inputs, request.truncate, &tenant)).await?;
        if permit.is_withdrawn() {
            return Err(StepFailure::Displaced.into());
        }
        let prompt_tokens = texts.iter().map(|text| text.len() as u32).sum();
        let job = Job { texts, adapter, dimensions, priority: request.priority, deadline };
        let vectors = self.embedded(permit.clone(), job, deadline).await?;
        let embeddings = vectors.into_iter().map(|values| v1::Embedding { values }).collect();
        let request_id = request.request_id;
        Ok(Response::new(v1::EmbedResponse { embeddings, prompt_tokens, expert: Some(expert), request_id }))
    }
}

impl Embed {
    async fn embedded(
        &self,
        permit: Arc<crate::permits::Permit>,
        job: Job,
        deadline: Option<Instant>,
    ) -> Result<Vec<Vec<f32>>, Status> {
        let reply = embedding(&self.0)?.embedder.submit(permit, job)?;
        within(deadline, async { Ok(reply.await.map_err(|_| status::engine_gone())??) }).await
    }

    async fn tokens(
        &self,
        inputs: Vec<v1::EmbedInput>,
        truncate: bool,
        tenant: &Arc<str>,
    ) -> Result<Vec<Vec<u32>>, Status> {
        let bytes: usize = inputs.iter().map(bytes).sum();
        let shared = self.0.clone();
        let read = move || {
            let texts = &embedding(&shared)?.texts;
            let all = inputs.into_iter().enumerate();
            all.map(|(index, input)| tokens(texts, index, input, truncate)).collect::<Result<Vec<_>, Status>>()
        };
        if bytes <= INLINE_BYTES_MAX {
            return read();
        }
        let tokens = self.0.text.run(tenant, read).await;
        tokens.map_err(|error| Status::internal(error.to_string()))?
    }
}

/// What turns texts into vectors, if the model does.
fn embedding(shared: &Shared) -> Result<&Embedding, Status> {
    match &shared.model.work {
        Work::Embed(embedding) => Ok(embedding),
        Work::Generate(_) => {
            let remedy = "for embeddings, name a model whose spec.task is Embed";
            Err(status::wrong_task(&shared.model.name, "generates text", remedy))
        }
    }
}

fn check_inputs(count: usize) -> Result<(), Status> {
    match count {
        0 => Err(status::missing("inputs", "send at least one text")),
        count if count > INPUTS_MAX => {
            let message = format!("inputs has {count} entries; at most {INPUTS_MAX} are taken at once");
            Err(status::out_of_range("inputs", message))
        }
        _ => Ok(()),
    }
}

fn dimensions(asked: Option<u32>, width: usize) -> Result<usize, Status> {
    let asked = asked.map_or(width, |asked| asked as usize);
    if (1..=width).contains(&asked) {
        return Ok(asked);
    }
    Err(status::out_of_range("dimensions", format!("dimensions is {asked}; vectors of this model have 1 to {width}")))
}

fn bytes(input: &v1::EmbedInput) -> usize {
    match &input.input {
        Some(Input::Text(text)) => text.len(),
        Some(Input::TokenIds(ids)) => ids.ids.len(),
        None => 0,
    }
}

fn tokens(texts: &TextReader, index: usize, input: v1::EmbedInput, truncate: bool) -> Result<Vec<u32>, Status> {
    let tokens = match input.input {
        Some(Input::Text(text)) => texts.tokens(&text, truncate),
        Some(Input::TokenIds(ids)) => texts.given(ids.ids, truncate),
        None => return Err(status::missing("inputs", "each has a text or token_ids")),
    };
    tokens.map_err(|error| status::refused_text(index, &error))
}

//! Dispatch of a request for embeddings, whose answer is one message (`once`).
//!
//! The rules of a route see the first text as the prompt.

use std::sync::Arc;

use futures::FutureExt as _;
use slm_proto::v1::{
    EmbedRequest, EmbedResponse, GenerateRequest, TokenIds, embed_input, embeddings_client::EmbeddingsClient,
    generate_request::Input,
};
use tokio::time::Instant;
use tonic::Status;

use crate::{
    dispatch::{Call, Dispatcher, forwarded},
    events::{OpenStream, attributed},
    refusal::Refusal,
    view::Worker,
};

/// Bound on a worker's answer: 2048 vectors of 4096 numbers, and their lengths.
const ANSWER_BYTES_MAX: usize = 33 << 20;

impl Dispatcher {
    /// The vectors.
    pub(crate) async fn embed(&self, mut request: EmbedRequest, call: &Call) -> Result<EmbedResponse, Refusal> {
        let subject = subject(&mut request);
        let request = &request;
        let send = |worker: Arc<Worker>, expert: String, deadline| {
            async move { self.attempt_embed(&worker, &expert, request, call, deadline).await }.boxed()
        };
        self.once(&subject, call, &send, |response| response.prompt_tokens).await
    }

    async fn attempt_embed(
        &self,
        worker: &Arc<Worker>,
        expert: &str,
        request: &EmbedRequest,
        call: &Call,
        deadline: Instant,
    ) -> Result<EmbedResponse, Status> {
        let _open = OpenStream::new(&worker.open);
        let channel = self.channel(worker)?;
        let own = EmbedRequest {
            model: expert.to_owned(),
            priority: request.priority.max(call.caller.priority_min()),
            tenant: call.caller.tenant().to_owned(),
            ..request.clone()
        };
        let mut client = EmbeddingsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = async { client.embed(forwarded(own, call, deadline)).await.map_err(attributed) };
        self.heard(worker, answer).await.map(tonic::Response::into_inner)
    }
}

/// What decides where the request goes. Metadata are for that alone.
fn subject(request: &mut EmbedRequest) -> GenerateRequest {
    let first = request.inputs.first().and_then(|input| input.input.as_ref());
    let input = first.map(|input| match input {
        embed_input::Input::Text(text) => Input::Prompt(text.clone()),
        embed_input::Input::TokenIds(TokenIds { ids }) => Input::TokenIds(TokenIds { ids: ids.clone() }),
    });
    GenerateRequest {
        model: request.model.clone(),
        input,
        metadata: std::mem::take(&mut request.metadata),
        priority: request.priority,
        ..GenerateRequest::default()
    }
}

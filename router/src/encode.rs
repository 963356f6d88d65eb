//! Dispatch of a request for vectors, scores or labels, whose answer is one message (`once`).
//!
//! The rules of a route see the first text, or the query, as the prompt.

use std::{collections::HashMap, sync::Arc};

use futures::{FutureExt as _, future::BoxFuture};
use slm_proto::v1::{
    ClassifyRequest, ClassifyResponse, EmbedInput, EmbedRequest, EmbedResponse, GenerateRequest, RerankRequest,
    RerankResponse, TokenIds, embed_input, embeddings_client::EmbeddingsClient, generate_request::Input,
};
use tokio::time::Instant;
use tonic::{Response, Status, transport::Channel};

use crate::{
    access::table::Caller,
    dispatch::{Call, Dispatcher, forwarded},
    events::{OpenStream, attributed},
    refusal::Refusal,
    view::Worker,
};

/// Bound on a worker's answer: 2048 vectors of 4096 numbers, and their lengths.
pub(crate) const ANSWER_BYTES_MAX: usize = 33 << 20;

/// A request to `slm.v1.Embeddings`.
pub(crate) trait Encode: Clone + Send + Sync + 'static {
    type Answer: Send;

    /// What decides where the request goes. Takes the metadata, which are for that alone.
    fn subject(&mut self) -> GenerateRequest;

    /// Where the request says for whom it is: model, priority and tenant.
    fn address(&mut self) -> (&mut String, &mut i32, &mut String);

    /// The worker's answer.
    fn send(
        client: Client,
        request: tonic::Request<Self>,
    ) -> BoxFuture<'static, Result<Response<Self::Answer>, Status>>;

    /// Tokens of all its texts.
    fn prompt_tokens(answer: &Self::Answer) -> u32;
}

type Client = EmbeddingsClient<Channel>;

impl Dispatcher {
    /// The answer of the first worker that gives one.
    pub(crate) async fn encode<R: Encode>(&self, mut request: R, call: &Call) -> Result<R::Answer, Refusal> {
        let subject = request.subject();
        let request = &request;
        let send = |worker: Arc<Worker>, expert: String, deadline| {
            async move { self.attempt_encode(&worker, expert, request, call, deadline).await }.boxed()
        };
        self.once(&subject, call, &send, R::prompt_tokens).await
    }

    async fn attempt_encode<R: Encode>(
        &self,
        worker: &Arc<Worker>,
        expert: String,
        request: &R,
        call: &Call,
        deadline: Instant,
    ) -> Result<R::Answer, Status> {
        let _open = OpenStream::new(&worker.open);
        let client = EmbeddingsClient::new(self.channel(worker)?).max_decoding_message_size(ANSWER_BYTES_MAX);
        let own = for_worker(request.clone(), expert, &call.caller);
        let answer = async { R::send(client, forwarded(own, call, deadline)).await.map_err(attributed) };
        self.heard(worker, answer).await.map(Response::into_inner)
    }
}

/// The request under the expert's own name, with what the caller's token says of it.
fn for_worker<R: Encode>(mut request: R, expert: String, caller: &Caller) -> R {
    let (model, priority, tenant) = request.address();
    *model = expert;
    *priority = caller.priority_min().max(*priority);
    caller.tenant().clone_into(tenant);
    request
}

impl Encode for EmbedRequest {
    type Answer = EmbedResponse;

    fn subject(&mut self) -> GenerateRequest {
        subject(&self.model, first(&self.inputs), &mut self.metadata, self.priority)
    }

    fn address(&mut self) -> (&mut String, &mut i32, &mut String) {
        (&mut self.model, &mut self.priority, &mut self.tenant)
    }

    fn send(
        mut client: Client,
        request: tonic::Request<Self>,
    ) -> BoxFuture<'static, Result<Response<EmbedResponse>, Status>> {
        async move { client.embed(request).await }.boxed()
    }

    fn prompt_tokens(answer: &EmbedResponse) -> u32 {
        answer.prompt_tokens
    }
}

impl Encode for RerankRequest {
    type Answer = RerankResponse;

    fn subject(&mut self) -> GenerateRequest {
        subject(&self.model, Some(Input::Prompt(self.query.clone())), &mut self.metadata, self.priority)
    }

    fn address(&mut self) -> (&mut String, &mut i32, &mut String) {
        (&mut self.model, &mut self.priority, &mut self.tenant)
    }

    fn send(
        mut client: Client,
        request: tonic::Request<Self>,
    ) -> BoxFuture<'static, Result<Response<RerankResponse>, Status>> {
        async move { client.rerank(request).await }.boxed()
    }

    fn prompt_tokens(answer: &RerankResponse) -> u32 {
        answer.prompt_tokens
    }
}

impl Encode for ClassifyRequest {
    type Answer = ClassifyResponse;

    fn subject(&mut self) -> GenerateRequest {
        subject(&self.model, first(&self.inputs), &mut self.metadata, self.priority)
    }

    fn address(&mut self) -> (&mut String, &mut i32, &mut String) {
        (&mut self.model, &mut self.priority, &mut self.tenant)
    }

    fn send(
        mut client: Client,
        request: tonic::Request<Self>,
    ) -> BoxFuture<'static, Result<Response<ClassifyResponse>, Status>> {
        async move { client.classify(request).await }.boxed()
    }

    fn prompt_tokens(answer: &ClassifyResponse) -> u32 {
        answer.prompt_tokens
    }
}

fn subject(
    model: &str,
    input: Option<Input>,
    metadata: &mut HashMap<String, String>,
    priority: i32,
) -> GenerateRequest {
    GenerateRequest {
        model: model.to_owned(),
        input,
        metadata: std::mem::take(metadata),
        priority,
        ..GenerateRequest::default()
    }
}

fn first(inputs: &[EmbedInput]) -> Option<Input> {
    Some(match inputs.first()?.input.as_ref()? {
        embed_input::Input::Text(text) => Input::Prompt(text.clone()),
        embed_input::Input::TokenIds(TokenIds { ids }) => Input::TokenIds(TokenIds { ids: ids.clone() }),
    })
}

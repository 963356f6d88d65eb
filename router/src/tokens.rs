//! Dispatch of requests for tokens, and for the text of tokens (`once`).

use std::sync::Arc;

use futures::FutureExt as _;
use slm_proto::v1::{
    DetokenizeRequest, DetokenizeResponse, GenerateRequest, TokenIds, TokenizeRequest, TokenizeResponse,
    generate_request::Input, tokens_client::TokensClient,
};
use tokio::time::Instant;
use tonic::{Response, Status, transport::Channel};

use crate::{
    dispatch::{Call, Dispatcher, for_worker, forwarded},
    events::{OpenStream, attributed},
    refusal::Refusal,
    view::Worker,
};

/// Bound on a worker's answer: a million tokens with their pieces.
const ANSWER_BYTES_MAX: usize = 32 << 20;

impl Dispatcher {
    /// The tokens of the prompt of `request`, with their pieces if these are wanted.
    pub(crate) async fn tokenize(
        &self,
        request: &GenerateRequest,
        pieces: bool,
        call: &Call,
    ) -> Result<TokenizeResponse, Refusal> {
        let send = |worker: Arc<Worker>, expert: String, deadline| {
            let request = Some(for_worker(request, &expert, &call.caller));
            let asked = TokenizeRequest { request, pieces };
            async move {
                let (_open, mut client) = self.tokens_client(&worker)?;
                let answer = async { client.tokenize(forwarded(asked, call, deadline)).await.map_err(attributed) };
                self.heard(&worker, answer).await.map(Response::into_inner)
            }
            .boxed()
        };
        self.once(request, call, &send, |_| 0).await
    }

    /// The text of tokens.
    pub(crate) async fn detokenize(
        &self,
        mut request: DetokenizeRequest,
        call: &Call,
    ) -> Result<DetokenizeResponse, Refusal> {
        let subject = GenerateRequest {
            model: request.model.clone(),
            input: Some(Input::TokenIds(TokenIds { ids: request.token_ids.clone() })),
            metadata: std::mem::take(&mut request.metadata),
            ..GenerateRequest::default()
        };
        let request = &request;
        let send = |worker: Arc<Worker>, expert: String, deadline: Instant| {
            let tenant = call.caller.tenant().to_owned();
            let asked = DetokenizeRequest { model: expert, tenant, ..request.clone() };
            async move {
                let (_open, mut client) = self.tokens_client(&worker)?;
                let answer = async { client.detokenize(forwarded(asked, call, deadline)).await.map_err(attributed) };
                self.heard(&worker, answer).await.map(Response::into_inner)
            }
            .boxed()
        };
        self.once(&subject, call, &send, |_| 0).await
    }

    fn tokens_client(&self, worker: &Arc<Worker>) -> Result<(OpenStream, TokensClient<Channel>), Status> {
        let client = TokensClient::new(self.channel(worker)?).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok((OpenStream::new(&worker.open), client))
    }
}

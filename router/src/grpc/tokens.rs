//! `slm.v1.Tokens`.

use slm_listen::deadline::Deadline;
use slm_proto::v1::{DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse, tokens_server::Tokens};
use tonic::{Request, Response, Status};

use super::{GrpcServer, caller, identify};
use crate::{dispatch::Call, metrics::Api};

#[tonic::async_trait]
impl Tokens for GrpcServer {
    async fn tokenize(&self, request: Request<TokenizeRequest>) -> Result<Response<TokenizeResponse>, Status> {
        let call = Call::new(caller(&request)?, Api::grpc_tokens, Deadline::of(&request));
        let TokenizeRequest { request, pieces } = request.into_inner();
        let mut request = request.unwrap_or_default();
        self.known(&request.model, &call.caller)?;
        if request.input.is_none() {
            let message = "`request` has no `messages`, `prompt` or `token_ids`; send one of them";
            return Err(Status::invalid_argument(message));
        }
        identify(&mut request.request_id);
        Ok(Response::new(self.dispatcher.tokenize(&request, pieces, &call).await?))
    }

    async fn detokenize(&self, request: Request<DetokenizeRequest>) -> Result<Response<DetokenizeResponse>, Status> {
        let call = Call::new(caller(&request)?, Api::grpc_tokens, Deadline::of(&request));
        let mut request = request.into_inner();
        self.known(&request.model, &call.caller)?;
        identify(&mut request.request_id);
        Ok(Response::new(self.dispatcher.detokenize(request, &call).await?))
    }
}

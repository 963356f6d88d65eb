//! `slm.v1.Embeddings`.

use slm_listen::deadline::Deadline;
use slm_proto::v1::{EmbedRequest, EmbedResponse, embeddings_server::Embeddings};
use tonic::{Request, Response, Status};

use super::{GrpcServer, caller};
use crate::{dispatch::Call, metrics::Api};

#[tonic::async_trait]
impl Embeddings for GrpcServer {
    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let call = Call { caller: caller(&request)?, api: Api::grpc_embed, deadline: Deadline::of(&request) };
        let mut request = request.into_inner();
        self.known(&request.model, &call.caller)?;
        if request.inputs.is_empty() {
            return Err(Status::invalid_argument("`inputs` is missing; send at least one text"));
        }
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        Ok(Response::new(self.dispatcher.embed(request, &call).await?))
    }
}

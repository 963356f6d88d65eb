//! `slm.v1.Embeddings`.

use slm_listen::deadline::Deadline;
use slm_proto::v1::{
    ClassifyRequest, ClassifyResponse, EmbedRequest, EmbedResponse, RerankRequest, RerankResponse,
    embeddings_server::Embeddings,
};
use tonic::{Request, Response, Status};

use super::{GrpcServer, caller, identify};
use crate::{dispatch::Call, encode::Encode, metrics::Api};

#[tonic::async_trait]
impl Embeddings for GrpcServer {
    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let check = |request: &mut EmbedRequest| {
            identify(&mut request.request_id);
            present("inputs", request.inputs.len())
        };
        self.encode(request, Api::grpc_embed, check).await
    }

    async fn rerank(&self, request: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        let check = |request: &mut RerankRequest| {
            identify(&mut request.request_id);
            present("query", request.query.len())?;
            present("documents", request.documents.len())
        };
        self.encode(request, Api::grpc_rerank, check).await
    }

    async fn classify(&self, request: Request<ClassifyRequest>) -> Result<Response<ClassifyResponse>, Status> {
        let check = |request: &mut ClassifyRequest| {
            identify(&mut request.request_id);
            present("inputs", request.inputs.len())
        };
        self.encode(request, Api::grpc_classify, check).await
    }
}

impl GrpcServer {
    async fn encode<R: Encode>(
        &self,
        request: Request<R>,
        api: Api,
        check: impl FnOnce(&mut R) -> Result<(), Status>,
    ) -> Result<Response<R::Answer>, Status> {
        let call = Call::new(caller(&request)?, api, Deadline::of(&request));
        let mut request = request.into_inner();
        let (model, ..) = request.address();
        self.known(model, &call.caller)?;
        check(&mut request)?;
        Ok(Response::new(self.dispatcher.encode(request, &call).await?))
    }
}

/// What a request cannot be without. The worker checks the rest.
fn present(field: &str, length: usize) -> Result<(), Status> {
    match length {
        0 => Err(Status::invalid_argument(format!("`{field}` is missing; send at least one text"))),
        _ => Ok(()),
    }
}

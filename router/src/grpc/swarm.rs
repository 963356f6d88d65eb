//! `slm.v1.Swarm`.

use slm_proto::v1::{Decision, GenerateRequest, ListModelsRequest, ListModelsResponse, swarm_server::Swarm};
use tonic::{Request, Response, Status};

use super::{GrpcServer, caller};
use crate::catalog::catalog;

#[tonic::async_trait]
impl Swarm for GrpcServer {
    async fn list_models(&self, request: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let models = catalog(&self.dispatcher.view(), &caller(&request)?);
        Ok(Response::new(ListModelsResponse { models }))
    }

    async fn explain(&self, request: Request<GenerateRequest>) -> Result<Response<Decision>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.dispatcher.explain(&mut request.into_inner(), &caller).await?))
    }
}

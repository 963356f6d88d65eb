//! `slm.v1.Swarm`.

use slm_proto::v1::{Decision, GenerateRequest, ListModelsRequest, ListModelsResponse, swarm_server::Swarm};
use tonic::{Request, Response, Status};

use super::Door;
use crate::catalog::catalog;

#[tonic::async_trait]
impl Swarm for Door {
    async fn list_models(&self, _: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        Ok(Response::new(ListModelsResponse { models: catalog(&self.dispatcher.view()) }))
    }

    async fn explain(&self, request: Request<GenerateRequest>) -> Result<Response<Decision>, Status> {
        Ok(Response::new(self.dispatcher.explain(&mut request.into_inner())?))
    }
}

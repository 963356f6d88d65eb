//! `slm.v1.Generation`.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use slm_listen::deadline::Deadline;
use slm_proto::v1::{Completion, GenerateRequest, GenerateResponse, generate_response, generation_server::Generation};
use tonic::{Request, Response, Status};

use super::{GrpcServer, caller, identify};
use crate::{
    dispatch::Call,
    events::{Answer, Event},
    metrics::Api,
};

type Answers = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Generation for GrpcServer {
    type GenerateStream = Answers;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Answers>, Status> {
        let (started, events) = self.answer(request, Api::grpc_generate).await?.relayed();
        let started = stream::iter([Ok(response(generate_response::Event::Started(started)))]);
        let rest = events.map(|event| match event {
            Ok(Event::Delta(delta)) => Ok(response(generate_response::Event::Delta(delta))),
            Ok(Event::Finished(finished)) => Ok(response(generate_response::Event::Finished(finished))),
            Err(refusal) => Err(refusal.into()),
        });
        Ok(Response::new(Box::pin(started.chain(rest))))
    }

    async fn complete(&self, request: Request<GenerateRequest>) -> Result<Response<Completion>, Status> {
        let answer = self.answer(request, Api::grpc_complete).await?;
        Ok(Response::new(answer.complete().await?))
    }
}

impl GrpcServer {
    async fn answer(&self, request: Request<GenerateRequest>, api: Api) -> Result<Answer, Status> {
        let call = Call::new(caller(&request)?, api, Deadline::of(&request));
        let mut request = request.into_inner();
        self.known(&request.model, &call.caller)?;
        if request.input.is_none() {
            return Err(Status::invalid_argument("`messages`, `prompt` or `token_ids` is missing; send one of them"));
        }
        identify(&mut request.request_id);
        Ok(self.dispatcher.generate(&request, &call).await?)
    }
}

fn response(event: generate_response::Event) -> GenerateResponse {
    GenerateResponse { event: Some(event) }
}

//! The Open Inference Protocol, without its transports: prompts that come as tensors, answers that go as tensors; or texts and their
//! vectors, of models that embed.
//!
//! `tensor` reads the values of tensors, `request` makes [`GenerateRequest`](slm_proto::v1::GenerateRequest)s of a request, or an
//! [`EmbedRequest`](slm_proto::v1::EmbedRequest), `reply` the tensors of an answer, `describe` says what a model takes and gives. `http::inference` and `grpc::inference` are the transports.

mod describe;
mod reply;
mod request;
mod tensor;

use std::sync::Arc;

use futures::future::try_join_all;
use slm_proto::v1::{EmbedRequest, EmbedResponse, GenerateRequest};
use tonic::{Code, Status, metadata::MetadataMap};

pub(crate) use self::{
    describe::{TensorDescription, describe, embeds, index, ready, same_version},
    reply::{Output, Values, expert, finished, piece, vectors, whole},
    request::{Asked, AskedVectors, Form, Infer},
    tensor::{Datatype, Tensor, count},
};
use crate::{
    dispatch::{Call, Dispatcher},
    events::Answer,
    http::{embeddings::named, error::ApiError, head::CompletionKind, names::FieldNames},
    refusal::Refusal,
};

/// The one version of every model.
pub(crate) const VERSION: &str = "1";
/// The name of the platform.
pub(crate) const PLATFORM: &str = "slm-swarm";
/// The tensor of prompts.
const TEXT_INPUT: &str = "text_input";
/// The tensor of vectors.
const EMBEDDING: &str = "embedding";

/// A refusal of the text at `index`.
#[derive(Debug)]
pub(crate) struct Refused {
    refusal: Refusal,
    index: usize,
    several: bool,
}

/// A refusal of a request for vectors.
#[derive(Debug)]
pub(crate) struct RefusedTexts {
    refusal: Refusal,
    several: bool,
}

/// The vectors of a request's texts.
pub(crate) async fn embed(
    dispatcher: &Dispatcher,
    request: EmbedRequest,
    call: &Call,
) -> Result<EmbedResponse, RefusedTexts> {
    let several = request.inputs.len() > 1;
    dispatcher.encode(request, call).await.map_err(|refusal| RefusedTexts { refusal, several })
}

/// Begins an answer to every request.
pub(crate) async fn begin(
    dispatcher: &Arc<Dispatcher>,
    requests: &[GenerateRequest],
    call: &Call,
) -> Result<Vec<Answer>, Refused> {
    let several = requests.len() > 1;
    let begun = requests.iter().enumerate().map(|(index, request)| async move {
        dispatcher.generate(request, call).await.map_err(|refusal| Refused { refusal, index, several })
    });
    try_join_all(begun).await
}

impl From<Refused> for ApiError {
    fn from(Refused { refusal, index, several }: Refused) -> Self {
        let names = FieldNames { several, input: TEXT_INPUT, ..FieldNames::new(CompletionKind::Text) };
        names.error(refusal, index)
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match invalid(&refused.refusal) {
            Some(metadata) => reworded(refused.into(), metadata),
            None => refused.refusal.into(),
        }
    }
}

impl From<RefusedTexts> for ApiError {
    fn from(RefusedTexts { refusal, several }: RefusedTexts) -> Self {
        named(refusal, TEXT_INPUT, several)
    }
}

impl From<RefusedTexts> for Status {
    fn from(refused: RefusedTexts) -> Self {
        match invalid(&refused.refusal) {
            Some(metadata) => reworded(refused.into(), metadata),
            None => refused.refusal.into(),
        }
    }
}

/// The metadata of a worker's refusal of what was sent, whose message names a field of `slm.v1`.
fn invalid(refusal: &Refusal) -> Option<MetadataMap> {
    match refusal {
        Refusal::Worker(status) if status.code() == Code::InvalidArgument => Some(status.metadata().clone()),
        _ => None,
    }
}

/// The same with the caller's name of the field.
fn reworded(error: ApiError, metadata: MetadataMap) -> Status {
    Status::with_metadata(Code::InvalidArgument, error.body.message, metadata)
}

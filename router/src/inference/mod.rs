//! The Open Inference Protocol, without its transports: prompts that come as tensors, answers that go as tensors.
//!
//! `tensor` reads the values of tensors, `request` makes [`GenerateRequest`](slm_proto::v1::GenerateRequest)s of a request, `reply` the
//! tensors of an answer, `describe` says what a model takes and gives. `http::inference` and `grpc::inference` are the transports.

mod describe;
mod reply;
mod request;
mod tensor;

use futures::future::try_join_all;
use slm_proto::v1::GenerateRequest;
use tonic::{Code, Status};

pub(crate) use self::{
    describe::{OUTPUTS, TENSORS, TensorDescription, index, ready, same_version},
    reply::{Output, Values, expert, finished, piece, whole},
    request::{Asked, Form, Infer},
    tensor::{Datatype, Tensor, count},
};
use crate::{
    dispatch::{Call, Dispatcher},
    events::Answer,
    http::{error::ApiError, head::CompletionKind, names::FieldNames},
    refusal::Refusal,
};

/// The one version of every model.
pub(crate) const VERSION: &str = "1";
/// The name of the platform.
pub(crate) const PLATFORM: &str = "slm-swarm";
/// The tensor of prompts.
const TEXT_INPUT: &str = "text_input";

/// A refusal of the text at `index`.
#[derive(Debug)]
pub(crate) struct Refused {
    refusal: Refusal,
    index: usize,
    several: bool,
}

/// Begins an answer to every request.
pub(crate) async fn begin(
    dispatcher: &Dispatcher,
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
        match &refused.refusal {
            Refusal::Worker(status) if status.code() == Code::InvalidArgument => {
                let metadata = status.metadata().clone();
                let error = ApiError::from(refused);
                Self::with_metadata(Code::InvalidArgument, error.body.message, metadata)
            }
            _ => refused.refusal.into(),
        }
    }
}

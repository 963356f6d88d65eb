//! Errors as gRPC statuses. The trailers of `slm_proto` carry the error's name, and the field, for those who answer in
//! another protocol.

use slm_artifacts::FetchError;
use slm_convert::pack::PackError;
use slm_proto::trailers;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::{
    adapters::AdapterSlotsError,
    admit::AdmitError,
    engine::{StepFailure, SubmitError},
    model::LoadAdapterError,
    text::PromptError,
};

/// Names the field that is wrong, as the proto does.
fn at_field(mut status: Status, field: &str) -> Status {
    if let Ok(field) = MetadataValue::try_from(field) {
        status.metadata_mut().insert(trailers::ERROR_FIELD, field);
    }
    status
}

fn status(code: Code, reason: &'static str, message: impl ToString) -> Status {
    let mut status = Status::new(code, message.to_string());
    status.metadata_mut().insert(trailers::REASON, MetadataValue::from_static(reason));
    status
}

/// The name is of nothing that is loaded; `known` are the names that are.
pub(super) fn unknown_model(name: &str, known: &[String]) -> Status {
    let mut near: Vec<_> = known.iter().map(|known| (strsim::jaro_winkler(name, known), known)).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<_> = near.iter().take(3).map(|(_, known)| format!("`{known}`")).collect();
    status(Code::NotFound, "ModelNotFound", format!("model `{name}` is not loaded here; nearest: {}", near.join(", ")))
}

pub(super) fn draining() -> Status {
    status(Code::Unavailable, "Draining", "the worker is draining; retry on another")
}

pub(super) fn engine_gone() -> Status {
    status(Code::Internal, "EngineStopped", "the engine stopped before the answer was complete")
}

pub(super) fn missing(field: &'static str, expected: &str) -> Status {
    at_field(status(Code::InvalidArgument, "Empty", format!("{field} is missing; {expected}")), field)
}

impl From<AdmitError> for Status {
    fn from(error: AdmitError) -> Self {
        let mut refused = status(Code::InvalidArgument, error.reason(), &error);
        match error {
            AdmitError::OutOfRange { field, .. } | AdmitError::Empty(field) => at_field(refused, field),
            AdmitError::ContextLengthExceeded { .. } => {
                let code = MetadataValue::from_static(trailers::CONTEXT_LENGTH_EXCEEDED);
                refused.metadata_mut().insert(trailers::ERROR_CODE, code);
                refused
            }
        }
    }
}

impl From<PromptError> for Status {
    fn from(error: PromptError) -> Self {
        let reason = match &error {
            PromptError::NoTokenizer { .. } => "NoTokenizer",
            PromptError::NoChatTemplate { .. } => "NoChatTemplate",
            PromptError::ChatTemplate(_) => "ChatTemplate",
            PromptError::Tokenizer(_) => "Tokenizer",
            PromptError::TokenId { .. } => "TokenId",
        };
        let refused = status(Code::InvalidArgument, reason, &error);
        match error {
            PromptError::NoTokenizer { .. } => refused,
            PromptError::NoChatTemplate { .. } | PromptError::ChatTemplate(_) => at_field(refused, "messages"),
            PromptError::Tokenizer(_) => at_field(refused, "prompt"),
            PromptError::TokenId { index, .. } => at_field(refused, &format!("token_ids[{index}]")),
        }
    }
}

impl From<SubmitError> for Status {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Full { .. } => status(Code::ResourceExhausted, "Full", error),
            SubmitError::Stopped => status(Code::Unavailable, "Stopped", error),
        }
    }
}

impl From<StepFailure> for Status {
    fn from(error: StepFailure) -> Self {
        let (code, reason) = match &error {
            StepFailure::Deadline => (Code::DeadlineExceeded, "Deadline"),
            StepFailure::NotFinite(_) => (Code::Internal, "NotFinite"),
            StepFailure::Session(_) => (Code::Internal, "Session"),
        };
        status(code, reason, &error)
    }
}

/// An adapter's artifact cannot be had.
pub(super) fn not_fetched(error: &FetchError) -> Status {
    let code = if error.retryable() { Code::Unavailable } else { Code::FailedPrecondition };
    status(code, error.reason(), error)
}

impl From<LoadAdapterError> for Status {
    fn from(error: LoadAdapterError) -> Self {
        let (code, reason) = match &error {
            LoadAdapterError::Adapter(_) => (Code::InvalidArgument, "InvalidAdapter"),
            LoadAdapterError::Pack(PackError::OutOfRange { .. }) => (Code::InvalidArgument, "OutOfRange"),
            LoadAdapterError::Pack(PackError::Memory { .. }) => (Code::ResourceExhausted, "Memory"),
            LoadAdapterError::Digest { .. } => (Code::FailedPrecondition, "DigestMismatch"),
            LoadAdapterError::Rank { .. } => (Code::InvalidArgument, "Rank"),
            LoadAdapterError::NameTaken(_) => (Code::InvalidArgument, "NameTaken"),
            LoadAdapterError::Scale(_) => (Code::InvalidArgument, "Scale"),
            LoadAdapterError::Slots(AdapterSlotsError::Full { .. }) => (Code::ResourceExhausted, "SlotsFull"),
            LoadAdapterError::Slots(AdapterSlotsError::Retiring { .. }) => (Code::ResourceExhausted, "SlotsRetiring"),
        };
        status(code, reason, &error)
    }
}

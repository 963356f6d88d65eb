//! gRPC statuses of errors. Trailers of `slm_proto` carry the error's name and field for other protocols.

use std::time::Duration;

use slm_artifacts::FetchError;
use slm_convert::pack::PackError;
use slm_proto::trailers;
use tonic::{Code, Status, metadata::MetadataValue};

use super::input::InputError;
use crate::{
    adapters::{AllPinned, PrepareError, PublishError},
    admit::AdmitError,
    constrain::ConstraintError,
    embed::{RoomError, TextError},
    engine::{StepFailure, SubmitError},
    model::{LoadAdapterError, Task},
    permits::PermitError,
    runtime::BankError,
    text::PromptError,
    tools::ToolsError,
};

/// Adds the name of the invalid field, in the proto's spelling.
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

/// No model or adapter of that name is loaded; `known` are the loaded names.
pub(super) fn unknown_model(name: &str, known: &[String]) -> Status {
    let mut near: Vec<_> = known.iter().map(|known| (strsim::jaro_winkler(name, known), known)).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<_> = near.iter().take(3).map(|(_, known)| format!("`{known}`")).collect();
    status(Code::NotFound, "ModelNotFound", format!("model `{name}` is not loaded here; nearest: {}", near.join(", ")))
}

pub(super) fn draining() -> Status {
    status(Code::Unavailable, "Draining", "the worker is draining; retry on another")
}

/// The model was opened for `task` and was asked for another.
pub(super) fn wrong_task(model: &str, task: Task, asked: Task) -> Status {
    let (does, place) = match task {
        Task::Generate => ("generates text", ""),
        Task::Embed => ("embeds texts", "/v1/embeddings, or to Embed"),
        Task::Rerank => ("reranks documents", "/v1/rerank, or to Rerank"),
        Task::Classify => ("classifies texts", "/v1/classify, or to Classify"),
    };
    let remedy = match asked {
        Task::Generate => format!("send it to {place}"),
        Task::Embed => "for embeddings, name a model whose spec.task is Embed".to_owned(),
        Task::Rerank => "to rerank, name a model whose spec.task is Rerank".to_owned(),
        Task::Classify => "to classify, name a model whose spec.task is Classify".to_owned(),
    };
    let refused = status(Code::FailedPrecondition, "WrongTask", format!("model `{model}` {does}; {remedy}"));
    at_field(refused, "model")
}

/// A field that a model which generates nothing has no use for.
pub(super) fn for_generation(field: &str, model: &str) -> Status {
    let message = format!("{field} is for models that generate text, which `{model}` does not; leave it out");
    at_field(status(Code::InvalidArgument, "Conflict", message), field)
}

/// Messages to a model that has no chat template by its task.
pub(super) fn no_messages(model: &str) -> Status {
    let message = format!("messages are for a chat template, which `{model}` does not have; send its text as prompt");
    at_field(status(Code::InvalidArgument, "Conflict", message), "messages")
}

/// A text of a request is refused; `field` is its name.
pub(super) fn refused_text(field: &str, error: &TextError) -> Status {
    let reason = match error {
        TextError::Empty => "Empty",
        TextError::TooLong { .. } | TextError::LongQuery { .. } | TextError::LongPair { .. } => "ContextLengthExceeded",
        TextError::TokenId { .. } => "TokenId",
        TextError::NoTokenizer(_) => "NoTokenizer",
        TextError::Tokenizer(_) => "Tokenizer",
    };
    let refused = at_field(status(Code::InvalidArgument, reason, format!("{field} {error}")), field);
    if reason == "ContextLengthExceeded" { context_length_exceeded(refused) } else { refused }
}

/// A field of a request is out of its range.
pub(super) fn out_of_range(field: &str, message: impl ToString) -> Status {
    at_field(status(Code::InvalidArgument, "OutOfRange", message), field)
}

pub(super) fn engine_gone() -> Status {
    status(Code::Internal, "EngineStopped", "the engine stopped before the answer was complete")
}

pub(super) fn missing(field: &'static str, expected: &'static str) -> Status {
    InputError::Missing { field, expected }.into()
}

/// The reader of an answer took nothing for too long.
pub(super) fn not_read(idle: Duration) -> Status {
    status(Code::Aborted, "NotRead", format!("nothing of the answer was read for {idle:?}; it was ended"))
}

/// A complete but unread answer was ended for another tenant's request.
pub(super) fn displaced_unread() -> Status {
    let message = "the answer was complete and not read while another tenant needed its place; it was ended";
    status(Code::ResourceExhausted, "Unread", message)
}

/// A load exceeded its time limit.
pub(super) fn load_timed_out(limit: Duration) -> Status {
    let message = format!("the adapter was not loaded within {limit:?}; see to its source, or raise --load-timeout");
    status(Code::DeadlineExceeded, "LoadTimeout", message)
}

/// The matrices of an adapter are in no memory, and cannot be read again.
pub(super) fn adapter_gone(name: &str, error: &Status) -> Status {
    let message = format!(
        "the files of adapter `{name}` have left the cache and were not read again: {}; it is loaded anew as soon as its \
         source can be read",
        error.message()
    );
    status(Code::Unavailable, "AdapterGone", message)
}

impl From<AllPinned> for Status {
    fn from(error: AllPinned) -> Self {
        status(Code::ResourceExhausted, "AllPinned", error)
    }
}

impl From<InputError> for Status {
    fn from(error: InputError) -> Self {
        let invalid = |reason| status(Code::InvalidArgument, reason, &error);
        match &error {
            InputError::Missing { field, .. } => at_field(invalid("Empty"), field),
            InputError::Messages { .. } => at_field(invalid("OutOfRange"), "messages"),
            InputError::Conflict { field, .. } => at_field(invalid("Conflict"), field),
            InputError::Tenant(_) => at_field(invalid("OutOfRange"), "tenant"),
            InputError::Tools(error) => error.clone().into(),
            InputError::TooLong { .. } => context_length_exceeded(invalid("ContextLengthExceeded")),
        }
    }
}

fn context_length_exceeded(mut refused: Status) -> Status {
    let code = MetadataValue::from_static(trailers::CONTEXT_LENGTH_EXCEEDED);
    refused.metadata_mut().insert(trailers::ERROR_CODE, code);
    refused
}

impl From<ToolsError> for Status {
    fn from(error: ToolsError) -> Self {
        let reason = match &error {
            ToolsError::TooMany { .. } => "OutOfRange",
            ToolsError::Invalid { .. } => "Tools",
        };
        at_field(status(Code::InvalidArgument, reason, &error), error.field())
    }
}

impl From<PermitError> for Status {
    fn from(error: PermitError) -> Self {
        let reason = match error {
            PermitError::Full { .. } => "Full",
            PermitError::Unread { .. } => "Unread",
        };
        status(Code::ResourceExhausted, reason, error)
    }
}

impl From<AdmitError> for Status {
    fn from(error: AdmitError) -> Self {
        let refused = status(Code::InvalidArgument, error.reason(), &error);
        match error {
            AdmitError::OutOfRange { field, .. }
            | AdmitError::TooMany { field, .. }
            | AdmitError::Token { field, .. }
            | AdmitError::Empty(field) => at_field(refused, field),
            AdmitError::ContextLengthExceeded { .. } => context_length_exceeded(refused),
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
            PromptError::NoInfill { .. } => "NoInfill",
        };
        let refused = status(Code::InvalidArgument, reason, &error);
        match error {
            PromptError::NoTokenizer { .. } => refused,
            PromptError::NoChatTemplate { .. } | PromptError::ChatTemplate(_) => at_field(refused, "messages"),
            PromptError::Tokenizer(_) => at_field(refused, "prompt"),
            PromptError::NoInfill { .. } => at_field(refused, "suffix"),
            PromptError::TokenId { index, .. } => at_field(refused, &format!("token_ids[{index}]")),
        }
    }
}

impl From<ConstraintError> for Status {
    fn from(error: ConstraintError) -> Self {
        let (code, reason) = match &error {
            ConstraintError::Empty { .. } | ConstraintError::EmptyChoice { .. } => {
                (Code::InvalidArgument, "EmptyConstraint")
            }
            ConstraintError::Bytes { .. } | ConstraintError::Choices { .. } => (Code::InvalidArgument, "OutOfRange"),
            ConstraintError::Schema { .. } | ConstraintError::Tool { .. } | ConstraintError::Refused { .. } => {
                (Code::InvalidArgument, "Constraint")
            }
            ConstraintError::NoTokenizer { .. } => (Code::InvalidArgument, "ConstraintWithoutText"),
            ConstraintError::Slow { .. } => (Code::InvalidArgument, "ConstraintSlow"),
        };
        at_field(status(code, reason, &error), &error.field())
    }
}

impl From<SubmitError> for Status {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Stopped => status(Code::Unavailable, "Stopped", error),
        }
    }
}

impl From<RoomError> for Status {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::Tokens(_) => status(Code::ResourceExhausted, "Full", error),
            RoomError::Stopped(stopped) => stopped.into(),
        }
    }
}

impl From<StepFailure> for Status {
    fn from(error: StepFailure) -> Self {
        if let StepFailure::Constraint(failure) = &error
            && let Some(field) = failure.field()
        {
            return at_field(status(Code::InvalidArgument, "Constraint", &error), field);
        }
        let (code, reason) = match &error {
            StepFailure::Displaced => (Code::ResourceExhausted, "Full"),
            StepFailure::Deadline => (Code::DeadlineExceeded, "Deadline"),
            StepFailure::Constraint(_) => (Code::Internal, "Constraint"),
            StepFailure::NotFinite(_) => (Code::Internal, "NotFinite"),
            StepFailure::Session(_) => (Code::Internal, "Session"),
        };
        status(code, reason, &error)
    }
}

/// An adapter's artifact could not be fetched.
pub(super) fn not_fetched(error: &FetchError) -> Status {
    let code = if error.retryable() { Code::Unavailable } else { Code::FailedPrecondition };
    status(code, error.reason(), error)
}

impl From<LoadAdapterError> for Status {
    fn from(error: LoadAdapterError) -> Self {
        let (code, reason) = match &error {
            LoadAdapterError::Adapter(_) => (Code::InvalidArgument, "InvalidAdapter"),
            LoadAdapterError::Prepare(
                PrepareError::Pack(PackError::OutOfRange { .. }) | PrepareError::Bank(BankError::OutOfRange { .. }),
            ) => (Code::InvalidArgument, "OutOfRange"),
            LoadAdapterError::Prepare(PrepareError::Pack(PackError::Memory { .. })) => {
                (Code::ResourceExhausted, "Memory")
            }
            LoadAdapterError::Prepare(PrepareError::Bank(BankError::Full { .. })) => {
                (Code::ResourceExhausted, "BankFull")
            }
            LoadAdapterError::Prepare(PrepareError::Bank(BankError::Device(_) | BankError::NoBank)) => {
                (Code::Internal, "Device")
            }
            LoadAdapterError::Digest { .. } => (Code::FailedPrecondition, "DigestMismatch"),
            LoadAdapterError::Rank { .. } => (Code::InvalidArgument, "Rank"),
            LoadAdapterError::Head(_) => (Code::InvalidArgument, "InvalidHead"),
            LoadAdapterError::OtherHead { .. } => (Code::FailedPrecondition, "OtherHead"),
            LoadAdapterError::NameTaken(_) => (Code::InvalidArgument, "NameTaken"),
            LoadAdapterError::Scale(_) => (Code::InvalidArgument, "Scale"),
            LoadAdapterError::Publish(PublishError::Full) => (Code::ResourceExhausted, "AdaptersFull"),
            LoadAdapterError::Publish(PublishError::NoSlot { .. }) => (Code::ResourceExhausted, "NoSlot"),
            LoadAdapterError::Publish(PublishError::Superseded { .. }) => (Code::Aborted, "Superseded"),
        };
        status(code, reason, &error)
    }
}

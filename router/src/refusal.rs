//! Every refusal of a request, as a gRPC status. `http::error` gives the same in OpenAI's shape.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use slm_crds::{
    nearest::did_you_mean,
    route::{DataPolicy, UnknownDataPolicy},
};
use slm_proto::trailers;
use thiserror::Error;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::{absence::NotLoadable, permits::Full, quota::Exceeded};

/// A refusal of a request.
#[derive(Clone, Debug, Error)]
pub(crate) enum Refusal {
    /// No such name in the swarm.
    #[error("no model, adapter or route is named `{name}`{}", suggestion(.nearest))]
    UnknownModel { name: String, nearest: Vec<String> },
    /// A model outside of the swarm, named by a caller.
    #[error("`{name}` is an ExternalModel, which only routes ask; name a route that leads to it")]
    External { name: String },
    /// The data policy of the request does not let it leave.
    #[error(
        "`{name}` is outside of the swarm, and the data policy of this request is {policy}: the strictest of its route, its token, \
         its router and its `metadata`; name a route that stays inside, or allow it there"
    )]
    Policy { name: String, policy: DataPolicy },
    /// A data policy that there is not.
    #[error("`metadata.data_policy`: {0}")]
    UnknownPolicy(UnknownDataPolicy),
    /// The name is missing.
    #[error("`model` is missing: name a model, an adapter or a route")]
    NoModel,
    /// No worker has it loaded, even after some waiting.
    #[error("`{name}` is not loaded on any worker now: {why}; try again in {} s", .retry_after.as_secs())]
    NotResident { name: String, why: String, retry_after: Duration },
    /// No worker can load it until its files or its manifest change.
    #[error("{0}")]
    NotLoadable(NotLoadable),
    /// The wait queue is full.
    #[error("`{name}` is not loaded on any worker now and {waiting} requests wait already; try again later")]
    TooManyWaiting { name: String, waiting: usize },
    /// The limit of open answers is reached.
    #[error("{} answers are open {}; read or end some, and try again later", .0.limit(), .0.scope())]
    TooManyOpen(Full),
    /// A limit of the caller's token has no room.
    #[error("{0}")]
    RateLimited(Box<Exceeded>),
    /// A longer answer than the caller's token may ask for.
    #[error("max_tokens is {asked}; requests with the token `{token}` to `{name}` may ask for {most} at most")]
    MaxTokens { asked: u32, most: u32, token: Arc<str>, name: String },
    /// The limit of large bodies is reached.
    #[error("{} large request bodies are being read {}; send fewer at once, or try again later", .0.limit(), .0.scope())]
    LargeBodies(Full),
    /// No memory for a large body was free for so long.
    #[error("large request bodies had all the memory for {} s; send fewer at once, or try again later", .waited.as_secs())]
    LargeBodiesWait { waited: Duration },
    /// More metadata than rules may look at.
    #[error("`metadata` has {entries} entries and {bytes} bytes; at most {} and {} are taken", .limits.0, .limits.1)]
    Metadata { entries: usize, bytes: usize, limits: (usize, usize) },
    /// The caller has read nothing for too long.
    #[error("the answer was ended: nothing of it was read for {} s; read the stream as it comes", .idle.as_secs())]
    Unread { idle: Duration },
    /// The worker has sent nothing for too long.
    #[error("the worker has sent nothing for {} s; try again", .idle.as_secs())]
    Silent { idle: Duration },
    /// The caller's own deadline.
    #[error("the deadline passed before the answer was complete; allow more time or ask for fewer tokens")]
    DeadlineExceeded,
    /// The router is shutting down.
    #[error("the router is shutting down; try again on another one")]
    ShuttingDown,
    /// No expert of the route is for the request; the words are the route's.
    #[error("{message}")]
    OutOfScope { message: String },
    /// A route with `onError: Reject` could not choose. `passes`: it may soon.
    #[error("the route `{route}` could not choose an expert: {why}")]
    Undecided { route: String, why: String, passes: bool },
    /// A route with `retrieve` got no passages. `passes`: it may soon.
    #[error("the route `{route}` could not retrieve passages: {why}")]
    NotRetrieved { route: String, why: String, passes: bool },
    /// A request that passages cannot be put into.
    #[error("`{field}`: the route `{route}` puts passages into conversations, and {why}")]
    NoPlace { route: String, field: &'static str, why: &'static str },
    /// An answer was not confident enough, and no larger target may be asked now.
    #[error(
        "no answer of the route `{route}` was confident enough, and its budget of escalations is spent; try again later"
    )]
    BudgetSpent { route: String },
    /// Too few experts of an ensemble answered. `late`: the time has passed.
    #[error(
        "of the experts of the route `{route}` {answered} answered{}, and {wanted} have to: {why}; try again later",
        if *.late { " in time" } else { "" }
    )]
    TooFew { route: String, answered: usize, wanted: usize, why: String, late: bool },
    /// Status of a worker.
    #[error("{}", .0.message())]
    Worker(Status),
}

fn suggestion(nearest: &[String]) -> String {
    did_you_mean(&nearest.iter().map(String::as_str).collect::<Vec<_>>())
}

impl Refusal {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::UnknownModel { .. } => Code::NotFound,
            Self::NoModel
            | Self::MaxTokens { .. }
            | Self::NoPlace { .. }
            | Self::External { .. }
            | Self::UnknownPolicy(_) => Code::InvalidArgument,
            Self::Policy { .. } => Code::PermissionDenied,
            Self::NotResident { .. } | Self::ShuttingDown => Code::Unavailable,
            // 400 over HTTP, as vLLM says it of an adapter that was found and cannot be loaded: clients do not try again.
            Self::NotLoadable(_)
            | Self::OutOfScope { .. }
            | Self::Undecided { passes: false, .. }
            | Self::NotRetrieved { passes: false, .. } => Code::FailedPrecondition,
            Self::TooManyWaiting { .. }
            | Self::TooManyOpen(_)
            | Self::RateLimited(_)
            | Self::LargeBodies(_)
            | Self::BudgetSpent { .. }
            | Self::LargeBodiesWait { .. } => Code::ResourceExhausted,
            Self::Metadata { .. } => Code::InvalidArgument,
            Self::Unread { .. } => Code::Aborted,
            Self::Silent { .. } | Self::Undecided { passes: true, .. } | Self::NotRetrieved { passes: true, .. } => {
                Code::Unavailable
            }
            Self::TooFew { late: false, .. } => Code::Unavailable,
            Self::DeadlineExceeded | Self::TooFew { late: true, .. } => Code::DeadlineExceeded,
            Self::Worker(status) => status.code(),
        }
    }

    /// Time until a retry makes sense, if waiting helps.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotResident { retry_after, .. } => Some(*retry_after),
            Self::RateLimited(exceeded) => Some(exceeded.retry_after),
            Self::TooManyWaiting { .. }
            | Self::TooManyOpen(_)
            | Self::LargeBodies(_)
            | Self::LargeBodiesWait { .. }
            | Self::BudgetSpent { .. }
            | Self::Silent { .. }
            | Self::Undecided { passes: true, .. }
            | Self::TooFew { late: false, .. }
            | Self::NotRetrieved { passes: true, .. }
            | Self::ShuttingDown => Some(Duration::from_secs(1)),
            Self::Worker(status) if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, message, retry_after) = (refusal.code(), refusal.to_string(), refusal.retry_after());
        match (refusal, retry_after) {
            (Refusal::Worker(status), _) => status,
            (_, Some(delay)) => {
                let details = retry_info(code, &message, delay);
                Self::with_details(code, message, details.into())
            }
            (Refusal::OutOfScope { .. }, None) => {
                let mut status = Self::new(code, message);
                status.metadata_mut().insert(trailers::ERROR_CODE, MetadataValue::from_static(trailers::OUT_OF_SCOPE));
                status
            }
            (_, None) => Self::new(code, message),
        }
    }
}

/// `google.rpc.Status` with a `google.rpc.RetryInfo`, as `grpc-status-details-bin` carries it.
fn retry_info(code: Code, message: &str, delay: Duration) -> Vec<u8> {
    let seconds = i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
    let info = RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos: 0 }) };
    let detail = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: info.encode_to_vec() };
    RpcStatus { code: code.into(), message: message.to_owned(), details: vec![detail] }.encode_to_vec()
}

// The four messages of google.rpc that a retry hint needs; a crate of all of them would weigh more than they do.

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unavailable_says_when_to_try_again() {
        let refusal = Refusal::NotResident {
            name: "banking".to_owned(),
            why: "worker http://a has not loaded banking".to_owned(),
            retry_after: Duration::from_secs(2),
        };
        let status = Status::from(refusal);
        assert_eq!(status.code(), Code::Unavailable);
        let details = RpcStatus::decode(status.details()).expect("details");
        let info = RetryInfo::decode(details.details[0].value.as_slice()).expect("retry info");
        assert_eq!(info.retry_delay.map(|delay| delay.seconds), Some(2));
    }

    #[test]
    fn unknown_names_come_with_the_nearest() {
        let refusal = Refusal::UnknownModel { name: "bankin".to_owned(), nearest: vec!["banking".to_owned()] };
        assert_eq!(refusal.to_string(), "no model, adapter or route is named `bankin`; did you mean `banking`?");
    }
}

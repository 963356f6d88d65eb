//! Anthropic's Messages API: `/v1/messages`.
//!
//! `request` makes the one [`GenerateRequest`](slm_proto::v1::GenerateRequest) of a body, with the `blocks` of its messages and its `tools`;
//! `reply` writes whole messages and `events` those of streams, `error` has every refusal in Anthropic's shape. There is no state.

mod blocks;
mod error;
mod events;
mod reply;
mod request;
mod tools;

use axum::{Extension, Router, body::Body, extract::State, http::HeaderMap, response::Response, routing::post};

pub(super) use self::error::AnthropicError;
use super::{Shared, body, content_type, reply::request_id};
use crate::{access::table::Caller, dispatch::Call, metrics::Api};

/// Begin of every path of this API.
pub(super) const PREFIX: &str = "/v1/messages";

pub(super) fn routes() -> Router<Shared> {
    Router::new().route(PREFIX, post(messages))
}

async fn messages(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, AnthropicError> {
    content_type::check(&headers)?;
    let (mut asked, hold) = body::read(body, &dispatcher, &caller, request::parse).await?;
    asked.request.request_id = request_id(&headers);
    reply::respond(&dispatcher, (asked, hold), &Call { caller, api: Api::anthropic_messages, deadline: None }).await
}

#[cfg(fuzzing)]
pub(super) fn readable(fields: super::fields::Fields) -> Result<(), ApiError> {
    request::parse(fields).map(drop)
}

//! Anthropic's Messages API: `/v1/messages` and `/v1/messages/count_tokens`.
//!
//! `request` makes the one [`GenerateRequest`](slm_proto::v1::GenerateRequest) of a body, with the `blocks` of its messages and its `tools`;
//! `reply` writes whole messages and `events` those of streams, `error` has every refusal in Anthropic's shape. There is no state.

mod blocks;
mod error;
mod events;
mod reply;
mod request;
mod tools;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::json;

pub(super) use self::error::AnthropicError;
use super::{
    Shared, body, content_type,
    reply::{identified, request_id},
};
use crate::{access::table::Caller, dispatch::Call, metrics::Api};

/// Begin of every path of this API.
pub(super) const PREFIX: &str = "/v1/messages";

pub(super) fn routes() -> Router<Shared> {
    Router::new().route(PREFIX, post(messages)).route("/v1/messages/count_tokens", post(count_tokens))
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
    reply::respond(&dispatcher, (asked, hold), &Call::new(caller, Api::anthropic_messages, None)).await
}

/// The tokens of the prompt that the same request would have.
async fn count_tokens(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, AnthropicError> {
    content_type::check(&headers)?;
    let (mut asked, _hold) = body::read(body, &dispatcher, &caller, request::parse_prompt).await?;
    asked.request.request_id = request_id(&headers);
    let call = Call::new(caller, Api::http_tokens, None);
    let answer = dispatcher.tokenize(&asked.request, false, &call).await.map_err(reply::named)?;
    let response = Json(json!({ "input_tokens": answer.token_ids.len() })).into_response();
    Ok(identified(response, answer.expert.as_ref(), &answer.request_id))
}

#[cfg(fuzzing)]
pub(super) fn readable(fields: super::fields::Fields) -> Result<(), super::error::ApiError> {
    request::parse(fields).map(drop)
}

//! OpenAI's Responses API: `/v1/responses`, without state.
//!
//! `request` reads a body, `items` what was said before, `tools` the functions that may be called; `writer` makes the items and events
//! of an answer as it comes, `reply` sends them. Nothing is kept: what refers to an earlier response is refused.

mod items;
mod reply;
mod request;
mod tools;
mod writer;

use axum::{Extension, Router, body::Body, extract::State, http::HeaderMap, response::Response, routing::post};

use super::{Shared, body, content_type, error::ApiError, reply::request_id};
use crate::{access::table::Caller, dispatch::Call, metrics::Api};

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/responses", post(create))
}

async fn create(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    content_type::check(&headers)?;
    let (mut asked, hold) = body::read(body, &dispatcher, &caller, request::parse).await?;
    asked.request.request_id = request_id(&headers);
    reply::respond(&dispatcher, (asked, hold), &Call::new(caller, Api::http_responses, None)).await
}

#[cfg(fuzzing)]
pub(super) fn readable(fields: super::fields::Fields) -> Result<(), ApiError> {
    request::parse(fields).map(drop)
}

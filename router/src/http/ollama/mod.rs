//! Ollama's API, for tools that were made for it: `/api/chat`, `/api/generate`, `/api/embed`, `/api/tags`, `/api/ps`, `/api/show` and
//! `/api/version`.
//!
//! `request` makes the one [`GenerateRequest`] of a body, `options` reads its `options`, `reply` writes answers as lines of JSON,
//! `embed` is that of embeddings, `models` lists what the swarm has. Models are made by manifests, so what makes, copies
//! or deletes them in Ollama is no endpoint here.

mod embed;
mod models;
mod options;
mod reply;
mod request;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::Response,
    routing::{get, post},
};
use serde_json::json;

use self::{
    reply::{Kind, respond},
    request::Asked,
};
use super::{Shared, body, content_type, error::ApiError, fields::Fields, plain_error::PlainError, reply::request_id};
use crate::{access::table::Caller, dispatch::Call, metrics::Api};

/// Begin of every path of this API.
pub(super) const PREFIX: &str = "/api/";

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/chat", post(chat))
        .route("/api/generate", post(generate))
        .route("/api/embed", post(embed::embed))
        .route("/api/embeddings", post(embed::embeddings))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::ps))
        .route("/api/show", post(models::show))
        .route("/api/version", get(|| async { Json(json!({ "version": env!("CARGO_PKG_VERSION") })) }))
}

async fn chat(
    state: State<Shared>,
    caller: Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PlainError> {
    answer(state, caller, headers, body, (Kind::Chat, Api::ollama_chat, request::chat)).await
}

async fn generate(
    state: State<Shared>,
    caller: Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PlainError> {
    answer(state, caller, headers, body, (Kind::Generate, Api::ollama_generate, request::generate)).await
}

/// Makes a request of the fields of a body.
type Parse = fn(Fields) -> Result<Asked, ApiError>;

async fn answer(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
    (kind, api, parse): (Kind, Api, Parse),
) -> Result<Response, PlainError> {
    content_type::check_pages(&headers)?;
    let (mut asked, hold) = body::read(body, &dispatcher, &caller, parse).await?;
    if asked.loads {
        return Ok(models::loaded(&dispatcher, &caller, &asked.request.model, kind)?);
    }
    asked.request.request_id = request_id(&headers);
    respond(&dispatcher, (asked, hold), kind, &Call::new(caller, api, None)).await
}

/// `NAME:latest` is `NAME` to Ollama, and no name of ours has a colon.
fn without_tag(model: &str) -> &str {
    model.strip_suffix(":latest").unwrap_or(model)
}

#[cfg(fuzzing)]
pub(super) mod readable {
    use super::{ApiError, Fields, embed, request};

    pub(in crate::http) fn chat(fields: Fields) -> Result<(), ApiError> {
        request::chat(fields).map(drop)
    }

    pub(in crate::http) fn generate(fields: Fields) -> Result<(), ApiError> {
        request::generate(fields).map(drop)
    }

    pub(in crate::http) fn embed(fields: Fields) -> Result<(), ApiError> {
        embed::parse_embed(fields).map(drop)
    }
}

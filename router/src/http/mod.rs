//! The HTTP server: the OpenAI-compatible API, probes and metrics.
//!
//! A request is a JSON object that is read field by field (`fields`); fields that remain are refused by name (`unsupported`),
//! because a parameter that is silently ignored is a wrong answer. `browsers` is CORS and the checks of `Host` and `Origin` on
//! loopback, `content_type` the check that a body is JSON, `names`
//! the caller's own names of fields that a worker refuses. `params` are shared by both kinds of completion, `chat` and
//! `completions` are the two kinds, `choices` several answers to one prompt, `tools` the functions that an answer may call,
//! `embeddings`, `rerank` and `classify` what encoders make of texts, `tokens` the tokens of prompts, `sse` the events of a stream, `logprobs` their log-probabilities, `error` every refusal in
//! OpenAI's shape, `shape` a refusal in that of another API. `responses` is OpenAI's Responses API, `ollama` and `anthropic` are
//! the APIs of these, `inference` is the Open Inference Protocol. `page` is the page at `/`.

mod anthropic;
mod auth;
mod body;
mod browsers;
mod chat;
mod choices;
mod classify;
mod completions;
mod constraint;
mod content_type;
pub(crate) mod embeddings;
pub(crate) mod error;
pub(crate) mod fields;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
pub(crate) mod head;
mod inference;
mod logprobs;
mod models;
pub(crate) mod names;
mod ollama;
mod page;
pub(crate) mod params;
mod plain_error;
mod probes;
mod rate_limits;
mod reply;
mod rerank;
mod responses;
mod shape;
mod sse;
mod tokens;
mod tools;
pub(crate) mod unsupported;

use std::sync::Arc;

use axum::{
    Router,
    http::Uri,
    middleware,
    routing::{get, post},
};
use slm_listen::Listener;
use tokio_util::sync::CancellationToken;

use self::{auth::authorize, error::ApiError};
use crate::{RunError, access::Access, dispatch::Dispatcher, origins::Origin};

type Shared = Arc<Dispatcher>;

/// What is for browsers.
pub(crate) struct Browsers {
    /// Web pages that may call.
    pub(crate) origins: Vec<Origin>,
    /// Whether the page at `/` is served.
    pub(crate) page: bool,
}

/// Serves until `shutdown`, then until the last answer ends.
pub(crate) async fn serve(
    listener: Listener,
    dispatcher: Shared,
    access: Access,
    browsers: Browsers,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let (address, guarded) = (listener.address, access.guarded());
    let limits = dispatcher.limits.connections();
    let connections = listener.connections(access.http().as_ref(), limits);
    let routes = routes(dispatcher, access);
    let routes = if browsers.page { routes.merge(page::routes()) } else { routes };
    let routes = browsers::around(routes, browsers.origins, address, guarded);
    slm_listen::http::serve(connections, routes, limits, shutdown.clone()).await;
    if shutdown.is_cancelled() {
        return Ok(());
    }
    Err(RunError::Server { server: "HTTP", reason: "there are no more connections".to_owned() })
}

/// Probes and metrics alone, in plain text, until it is dropped: they are asked for while answers still run.
pub(crate) async fn serve_probes(listener: Listener, dispatcher: Shared) -> Result<(), RunError> {
    let limits = dispatcher.limits.connections();
    let connections = listener.connections(None, limits);
    slm_listen::http::serve(connections, probes().with_state(dispatcher), limits, CancellationToken::new()).await;
    Err(RunError::Server { server: "probes", reason: "there are no more connections".to_owned() })
}

/// Unauthenticated routes are merged last. A guarded endpoint exposes only liveness and a bare ready or not ready: what
/// `/readyz` says is missing and what `/metrics` counts are names of models, workers and callers.
fn routes(dispatcher: Shared, access: Access) -> Router {
    let open = if access.guarded() {
        Router::new().route("/healthz", get(probes::healthz)).route("/readyz", get(probes::ready))
    } else {
        probes()
    };
    Router::new()
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/embeddings", post(embeddings::handle))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .merge(tokens::routes())
        .merge(rerank::routes())
        .merge(classify::routes())
        .merge(responses::routes())
        .merge(anthropic::routes())
        .merge(ollama::routes())
        .merge(inference::routes())
        .method_not_allowed_fallback(|uri: Uri| async move {
            shape::refused(uri.path(), ApiError::wrong_method(uri.path()))
        })
        .fallback(|uri: Uri| async move { shape::refused(uri.path(), ApiError::no_such_path(uri.path())) })
        .layer(middleware::from_fn_with_state((access, Arc::clone(&dispatcher)), authorize))
        .merge(open.method_not_allowed_fallback(|uri: Uri| async move { ApiError::wrong_method(uri.path()) }))
        .with_state(dispatcher)
}

fn probes() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
}

//! The HTTP door: the OpenAI-compatible API, probes and metrics.
//!
//! A request is a JSON object that is read field by field (`fields`); what is left over is refused by name
//! (`unsupported`), because a parameter that is silently ignored is a wrong answer. `params` are what both kinds of
//! completion share, `chat` and `completions` the two kinds, `sse` the events of a stream, `logprobs` their
//! log-probabilities, `error` every refusal in OpenAI's shape.

mod body;
mod chat;
mod completions;
mod error;
mod fields;
mod logprobs;
mod models;
mod params;
mod probes;
mod reply;
mod sse;
mod unsupported;

use std::sync::Arc;

use axum::{
    Router,
    http::Uri,
    routing::{get, post},
    serve::ListenerExt as _,
};
use tokio_util::sync::CancellationToken;

use self::error::ApiError;
use crate::{RunError, dispatch::Dispatcher, listen::Listener};

type Shared = Arc<Dispatcher>;

/// Serves until `shutdown`, then until the last answer ends.
pub(crate) async fn serve(listener: Listener, dispatcher: Shared, shutdown: CancellationToken) -> Result<(), RunError> {
    // Without it a token waits for the acknowledgement of the one before.
    let tcp = listener.tcp.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
    });
    axum::serve(tcp, routes(dispatcher))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|error| RunError::Server { server: "HTTP", reason: error.to_string() })
}

fn routes(dispatcher: Shared) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .method_not_allowed_fallback(|uri: Uri| async move { ApiError::wrong_method(uri.path()) })
        .fallback(|uri: Uri| async move { ApiError::no_such_path(uri.path()) })
        .with_state(dispatcher)
}

//! Liveness, readiness and metrics over HTTP, for processes whose own endpoint is gRPC.
//!
//! - `GET /healthz`: the process answers.
//! - `GET /readyz`: 200 when it serves, else 503; the body says what is missing, as JSON.
//! - `GET /metrics`: the Prometheus text format.

pub mod faults;

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use slm_listen::Listener;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The media type of `/metrics`.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Readiness of a process, as its `/readyz` gives it. A router has more to say: that of the swarm behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// True when nothing is missing.
    pub ready: bool,
    /// Missing parts, for people.
    pub missing: Vec<String>,
}

impl Readiness {
    /// Ready.
    #[must_use]
    pub fn ready() -> Self {
        Self { ready: true, missing: Vec::new() }
    }

    /// Not ready, for want of this.
    #[must_use]
    pub fn missing(what: impl Into<String>) -> Self {
        Self { ready: false, missing: vec![what.into()] }
    }
}

/// A process with probes.
pub trait Subject: Send + Sync + 'static {
    /// Whether it serves.
    fn readiness(&self) -> Readiness;
    /// Its metrics as text.
    fn metrics(&self) -> String;
}

/// Answers until `shutdown`.
///
/// # Errors
/// A socket that fails.
pub async fn serve(listener: TcpListener, subject: Arc<dyn Subject>, shutdown: CancellationToken) -> io::Result<()> {
    let listener = Listener { address: listener.local_addr()?, tcp: listener };
    let limits = slm_listen::Limits::default();
    slm_listen::http::serve(listener.connections(None, limits), routes(subject), limits, shutdown).await;
    Ok(())
}

fn routes(subject: Arc<dyn Subject>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(subject)
}

async fn readyz(State(subject): State<Arc<dyn Subject>>) -> Response {
    let readiness = subject.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(subject): State<Arc<dyn Subject>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS)], subject.metrics()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt as _;

    use super::*;

    struct Loading;

    impl Subject for Loading {
        fn readiness(&self) -> Readiness {
            Readiness::missing("the model is being loaded")
        }

        fn metrics(&self) -> String {
            "# EOF\n".to_owned()
        }
    }

    async fn asked(path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = routes(Arc::new(Loading)).oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn says_what_is_missing() {
        assert_eq!(asked("/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(asked("/metrics").await, (200, "# EOF\n".to_owned()));
        let missing = "{\"ready\":false,\"missing\":[\"the model is being loaded\"]}";
        assert_eq!(asked("/readyz").await, (503, missing.to_owned()));
    }
}

//! Probes and metrics.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Shared, error::ApiError};
use crate::readiness::{Missing, readiness};

/// Liveness.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Readiness for requests, with the missing objects of the swarm.
pub(super) async fn readyz(State(dispatcher): State<Shared>) -> Response {
    let mut readiness = readiness(&dispatcher.view());
    let open = dispatcher.gate.open(&readiness);
    if dispatcher.gate.withdrawing.is_cancelled() {
        readiness.ready = false;
        let why = "is shutting down".to_owned();
        readiness.missing.push(Missing { kind: "Router".into(), name: String::new(), why });
    }
    let status = if open { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// Readiness without details, for callers without a token.
pub(super) async fn ready(State(dispatcher): State<Shared>) -> (StatusCode, &'static str) {
    if dispatcher.gate.open(&readiness(&dispatcher.view())) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// The Prometheus text format.
pub(super) async fn metrics(State(dispatcher): State<Shared>) -> Result<Response, ApiError> {
    let text = dispatcher.metrics.text().map_err(|error| ApiError::internal(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

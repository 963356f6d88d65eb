//! Refusals in the protocol's shape: `{"error": "…"}`.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::http::error::{ApiError, with_body};

/// A refused request.
#[derive(Debug)]
pub(in crate::http) struct InferenceError(ApiError);

impl From<ApiError> for InferenceError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for InferenceError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.0.body.message }));
        with_body(self.0, body)
    }
}

//! Refusals in Anthropic's shape: `{"type": "error", "error": {"type", "message"}}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::http::error::{ApiError, with_body};

/// A refused request.
#[derive(Debug)]
pub(in crate::http) struct AnthropicError(ApiError);

impl From<ApiError> for AnthropicError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl AnthropicError {
    /// The body, which is also an event of a stream.
    pub(super) fn json(&self) -> Value {
        let kind = match self.0.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            StatusCode::GATEWAY_TIMEOUT => "timeout_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        };
        json!({ "type": "error", "error": { "type": kind, "message": self.0.body.message } })
    }
}

impl IntoResponse for AnthropicError {
    fn into_response(self) -> Response {
        let body = Json(self.json());
        with_body(self.0, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;

    #[test]
    fn the_kind_follows_the_status() {
        let kind = |error: ApiError| AnthropicError(error).json()["error"]["type"].clone();
        assert_eq!(kind(ApiError::param("max_tokens", "no")), "invalid_request_error");
        assert_eq!(kind(Refusal::UnknownModel { name: "x".to_owned(), nearest: Vec::new() }.into()), "not_found_error");
        assert_eq!(kind(ApiError::internal("broken")), "api_error");
    }
}

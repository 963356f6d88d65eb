//! The shape of a refusal: that of the API whose path was called.

use axum::response::{IntoResponse as _, Response};

use super::{
    anthropic::{self, AnthropicError},
    error::ApiError,
    inference, ollama,
    plain_error::PlainError,
};

/// The response to a refusal of a request to `path`.
pub(super) fn refused(path: &str, error: ApiError) -> Response {
    if path.starts_with(ollama::PREFIX) || path.starts_with(inference::PREFIX) {
        PlainError::from(error).into_response()
    } else if path.starts_with(anthropic::PREFIX) {
        AnthropicError::from(error).into_response()
    } else {
        error.into_response()
    }
}

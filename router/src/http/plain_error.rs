//! Refusals in the shape of Ollama and of the Open Inference Protocol: `{"error": "…"}`.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::error::{ApiError, with_body};

/// A refused request.
#[derive(Debug)]
pub(super) struct PlainError(ApiError);

impl From<ApiError> for PlainError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for PlainError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.0.body.message }));
        with_body(self.0, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;

    #[tokio::test]
    async fn the_message_is_all_and_the_status_stays() {
        let refusal = Refusal::UnknownModel { name: "smol".to_owned(), nearest: Vec::new() };
        let response = PlainError(ApiError::from(refusal)).into_response();
        assert_eq!(response.status().as_u16(), 404);
        assert_eq!(response.headers()["content-type"], "application/json");
        let bytes = axum::body::to_bytes(response.into_body(), 1000).await.expect("a body");
        let body: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert!(body["error"].as_str().is_some_and(|message| message.contains("smol")), "{body}");
    }
}

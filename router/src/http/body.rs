//! A body to a JSON object.

use axum::{body::Body, http::StatusCode};
use serde_json::Value;

use super::{error::ApiError, fields::Fields};

/// Reads at most `bytes_max`.
pub(super) async fn read(body: Body, bytes_max: usize) -> Result<Fields, ApiError> {
    let bytes = axum::body::to_bytes(body, bytes_max).await.map_err(|error| {
        // axum wraps what http-body-util says; the only error besides the limit is a caller that went away.
        let limit = std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("length limit"));
        if limit {
            ApiError::body(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body has more than the {bytes_max} bytes that are accepted"),
            )
            .code("request_too_large")
        } else {
            ApiError::body(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}"))
        }
    })?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
    let invalid = |message: String| ApiError::body(StatusCode::BAD_REQUEST, message).code("invalid_json");
    let text = std::str::from_utf8(bytes)
        .map_err(|error| invalid(format!("the body is not UTF-8: invalid at byte {}", error.valid_up_to())))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(Fields::new(object)),
        Ok(_) => Err(invalid("the body is JSON, but not an object".to_owned())),
        Err(error) => Err(invalid(format!("the body is not JSON: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refusals() {
        let cases: [(&[u8], u16, &str); 5] = [
            (b"{\"a\": \xff}", 400, "the body is not UTF-8: invalid at byte 6"),
            (b"{\"a\": ", 400, "the body is not JSON: EOF"),
            (b"[1]", 400, "not an object"),
            (b"", 400, "the body is not JSON"),
            (b"{\"a\": \"0123456789012345678901234567890\"}", 413, "more than the 32 bytes"),
        ];
        for (bytes, status, message) in cases {
            let error = read(Body::from(bytes), 32).await.expect_err(message);
            assert_eq!(error.status.as_u16(), status, "{message}");
            assert!(error.body.message.contains(message), "{}", error.body.message);
        }
    }
}

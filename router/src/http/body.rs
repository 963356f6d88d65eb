//! Parser of a request's body: a JSON object.

use std::error::Error;

use axum::{body::Body, http::StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use slm_listen::timed::{TimedBody, TooSlow};

use super::{error::ApiError, fields::Fields};
use crate::config::Limits;

/// Reads at most `limits.body_bytes_max`, for at most `limits.body`.
pub(super) async fn read(body: Body, limits: &Limits) -> Result<Fields, ApiError> {
    let limited = Limited::new(TimedBody::new(body, limits.body), limits.body_bytes_max);
    let bytes = limited.collect().await.map_err(|error| refused(&*error, limits))?.to_bytes();
    parse(&bytes)
}

fn refused(error: &(dyn Error + 'static), limits: &Limits) -> ApiError {
    if error.is::<LengthLimitError>() {
        let message = format!("the body has more than the {} bytes that are accepted", limits.body_bytes_max);
        return ApiError::body(StatusCode::PAYLOAD_TOO_LARGE, message).code("request_too_large");
    }
    if let Some(slow) = error.downcast_ref::<TooSlow>() {
        return ApiError::body(StatusCode::REQUEST_TIMEOUT, format!("{slow}; send it faster")).code("timeout");
    }
    ApiError::body(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}"))
}

pub(super) fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
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
            let limits = Limits { body_bytes_max: 32, ..Limits::default() };
            let error = read(Body::from(bytes), &limits).await.expect_err(message);
            assert_eq!(error.status.as_u16(), status, "{message}");
            assert!(error.body.message.contains(message), "{}", error.body.message);
        }
    }
}

//! Authentication of HTTP requests, before anything of a request is read.

use axum::{
    extract::{Request, State},
    http::header::AUTHORIZATION,
    middleware::Next,
    response::Response,
};

use super::{Shared, error::ApiError};
use crate::access::Access;

/// Gives handlers their caller as an extension, or answers 401.
pub(super) async fn authorize(
    State((access, dispatcher)): State<(Access, Shared)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let headers = request.headers().get_all(AUTHORIZATION);
    match access.caller(headers.iter().map(|value| value.as_bytes())) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(next.run(request).await)
        }
        Err(unauthorized) => {
            dispatcher.metrics.unauthorized();
            tracing::debug!(path = request.uri().path(), reason = %unauthorized, "nobody's request");
            Err(unauthorized.into())
        }
    }
}

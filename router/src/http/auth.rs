//! Authentication of HTTP requests, before anything of a request is read.

use std::{borrow::Cow, time::Instant};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};

use super::{Shared, error::ApiError, rate_limits, shape};
use crate::access::Access;

/// Anthropic's clients send the token in a header of their own.
const API_KEY: &str = "x-api-key";

/// Gives handlers their caller as an extension, or answers 401 in the shape of the API that was called.
pub(super) async fn authorize(
    State((access, dispatcher)): State<(Access, Shared)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Response> {
    let caller = access.caller(credentials(request.headers()).iter().map(AsRef::as_ref));
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller.clone());
            let mut response = next.run(request).await;
            rate_limits::tell(dispatcher.quotas.standing(&caller, Instant::now()), response.headers_mut());
            Ok(response)
        }
        Err(unauthorized) => {
            let path = request.uri().path();
            dispatcher.metrics.unauthorized();
            tracing::debug!(path, reason = %unauthorized, "nobody's request");
            let error = ApiError::from(unauthorized);
            Err(shape::refused(path, error))
        }
    }
}

/// The `Authorization` headers; without any, the key of Anthropic's header as a bearer token.
fn credentials(headers: &HeaderMap) -> Vec<Cow<'_, [u8]>> {
    let given: Vec<_> = headers.get_all(AUTHORIZATION).iter().map(|value| Cow::Borrowed(value.as_bytes())).collect();
    if !given.is_empty() {
        return given;
    }
    let bearer = |key: &HeaderValue| Cow::Owned([b"Bearer ", key.as_bytes()].concat());
    headers.get_all(API_KEY).iter().map(bearer).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn a_key_is_a_token_where_there_is_no_other() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers =
                pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let headers: HeaderMap = headers.collect();
            credentials(&headers)
                .into_iter()
                .map(|value| String::from_utf8_lossy(&value).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&[("x-api-key", "k")]), ["Bearer k"]);
        assert_eq!(of(&[("x-api-key", "k"), ("authorization", "Bearer t")]), ["Bearer t"]);
        assert!(of(&[]).is_empty());
    }
}

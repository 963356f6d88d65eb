//! Protection of and from browsers: CORS by named origins, and the `Host` of requests on loopback.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::Response,
};
use tower_http::cors::{AllowHeaders, AllowOrigin, AllowPrivateNetwork, CorsLayer};

use super::error::ApiError;
use crate::origins::{Origin, is_own_host};

/// Answers of a preflight are kept so long.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Puts both around `routes`: outermost, for a preflight has no token, and refusals are to be read too.
pub(super) fn around(routes: Router, origins: Vec<Origin>, address: SocketAddr, guarded: bool) -> Router {
    let origins: Arc<[Origin]> = origins.into();
    let routes = if origins.is_empty() { routes } else { routes.layer(cors(Arc::clone(&origins))) };
    // Behind TLS and a token, a page under another name gets nothing.
    if guarded || !address.ip().is_loopback() {
        return routes;
    }
    routes.layer(middleware::from_fn_with_state(Arc::new(Loopback { address, origins }), own_host))
}

fn cors(origins: Arc<[Origin]>) -> CorsLayer {
    let allowed = move |origin: &axum::http::HeaderValue, _: &axum::http::request::Parts| {
        origin.to_str().is_ok_and(|named| origins.iter().any(|origin| origin.matches(named)))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST])
        // Clients send many of their own, such as x-stainless-lang.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("x-slm-expert"),
            header::RETRY_AFTER,
        ])
        .allow_private_network(AllowPrivateNetwork::yes())
        .max_age(PREFLIGHT_MAX_AGE)
}

struct Loopback {
    address: SocketAddr,
    origins: Arc<[Origin]>,
}

async fn own_host(
    State(loopback): State<Arc<Loopback>>,
    uri: Uri,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let header = request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let named = [header, uri.authority().map(|authority| authority.as_str().to_owned())];
    let foreign = |host: &String| !is_own_host(host, loopback.address.ip(), &loopback.origins);
    if let Some(host) = named.into_iter().flatten().find(foreign) {
        let host: String = host.chars().take(80).collect();
        let message = format!(
            "this endpoint listens on {} and does not answer as {host:?}: call it as localhost or 127.0.0.1, or allow an \
             origin of that name with --http-allow-origin",
            loopback.address
        );
        return Err(ApiError::body(StatusCode::FORBIDDEN, message).code("host_not_allowed"));
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::post};
    use tower::ServiceExt as _;

    use super::*;

    fn router(origins: &[&str], address: &str, guarded: bool) -> Router {
        let origins = origins.iter().map(|origin| origin.parse().expect("an origin")).collect();
        let routes = Router::new().route("/v1/chat/completions", post(|| async { "ok" })).layer(middleware::from_fn(
            |request: Request, next: Next| async move {
                if request.headers().contains_key(header::AUTHORIZATION) {
                    next.run(request).await
                } else {
                    Response::builder().status(401).body(Body::empty()).expect("a response")
                }
            },
        ));
        around(routes, origins, address.parse().expect("an address"), guarded)
    }

    async fn ask(router: &Router, method: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri("/v1/chat/completions");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        router.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("an answer")
    }

    fn allowed(response: &Response) -> Option<&str> {
        response.headers().get("access-control-allow-origin").and_then(|value| value.to_str().ok())
    }

    #[tokio::test]
    async fn a_preflight_needs_no_token_and_an_answer_names_its_origin() {
        let router = router(&["http://localhost:*"], "0.0.0.0:8000", true);
        let page = ("origin", "http://localhost:3000");
        let asks = [
            page,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type,x-stainless-lang"),
        ];
        let preflight = ask(&router, "OPTIONS", &asks).await;
        assert_eq!((preflight.status().as_u16(), allowed(&preflight)), (200, Some("http://localhost:3000")));
        assert_eq!(preflight.headers()["access-control-allow-headers"], "authorization,content-type,x-stainless-lang");
        let answer = ask(&router, "POST", &[page, ("authorization", "Bearer t")]).await;
        assert_eq!((answer.status().as_u16(), allowed(&answer)), (200, Some("http://localhost:3000")));
        let refused = ask(&router, "POST", &[page]).await;
        assert_eq!((refused.status().as_u16(), allowed(&refused)), (401, Some("http://localhost:3000")));
        let other = ask(&router, "OPTIONS", &[("origin", "https://evil.example"), asks[1]]).await;
        assert_eq!(allowed(&other), None);
    }

    #[tokio::test]
    async fn without_origins_no_page_may_read() {
        let router = router(&[], "0.0.0.0:8000", true);
        let answer = ask(&router, "POST", &[("origin", "http://localhost:3000"), ("authorization", "Bearer t")]).await;
        assert_eq!((answer.status().as_u16(), allowed(&answer)), (200, None));
    }

    #[tokio::test]
    async fn on_loopback_the_host_is_looked_at() {
        let token = ("authorization", "Bearer t");
        for (address, guarded, host, status) in [
            ("127.0.0.1:8000", false, "localhost:8000", 200),
            ("127.0.0.1:8000", false, "[::1]:8000", 200),
            ("127.0.0.1:8000", false, "evil.example", 403),
            ("[::1]:8000", false, "evil.example", 403),
            ("127.0.0.1:8000", true, "router.example", 200),
            ("0.0.0.0:8000", false, "router.example", 200),
        ] {
            let router = router(&["http://localhost:*"], address, guarded);
            let answer = ask(&router, "POST", &[("host", host), token]).await;
            assert_eq!(answer.status().as_u16(), status, "{address} {host}");
        }
        // HTTP/1.0 has no such header, and no browser speaks it.
        let router = router(&[], "127.0.0.1:8000", false);
        assert_eq!(ask(&router, "POST", &[token]).await.status().as_u16(), 200);
    }
}

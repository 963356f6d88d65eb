//! Protection of and from browsers: CORS by named origins, and the `Host` and `Origin` of requests on loopback.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, Method, StatusCode, Version, header},
    middleware::{self, Next},
    response::Response,
};
use tower::ServiceExt as _;
use tower_http::cors::{AllowHeaders, AllowOrigin, AllowPrivateNetwork, CorsLayer};

use super::{error::ApiError, rate_limits};
use crate::origins::{Origin, is_own_host};

/// Answers of a preflight are kept so long.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Puts both around `routes`: outermost, for a preflight has no token, and refusals are to be read too.
pub(super) fn around(routes: Router, origins: Vec<Origin>, address: SocketAddr, guarded: bool) -> Router {
    let origins: Arc<[Origin]> = origins.into();
    let routes = if origins.is_empty() { routes } else { with_cors(routes, Arc::clone(&origins)) };
    // Behind TLS and a token, a page under another name gets nothing.
    if guarded || !address.ip().is_loopback() {
        return routes;
    }
    routes.layer(middleware::from_fn_with_state(Arc::new(Loopback { address, origins }), own_pages))
}

/// CORS takes every OPTIONS for a preflight. One that is none goes to the routes, as without CORS.
fn with_cors(routes: Router, origins: Arc<[Origin]>) -> Router {
    let plain = routes.clone();
    let preflights_alone = move |request: Request, next: Next| {
        let plain = plain.clone();
        async move {
            let headers = request.headers();
            let asks =
                headers.contains_key(header::ORIGIN) && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
            if request.method() == Method::OPTIONS && !asks {
                return plain.oneshot(request).await.unwrap_or_else(|never| match never {});
            }
            next.run(request).await
        }
    };
    routes.layer(cors(origins)).layer(middleware::from_fn(preflights_alone))
}

/// Headers of answers that pages may read, besides those of limits.
const EXPOSED: [HeaderName; 3] =
    [HeaderName::from_static("x-request-id"), HeaderName::from_static("x-slm-expert"), header::RETRY_AFTER];

fn cors(origins: Arc<[Origin]>) -> CorsLayer {
    let allowed = move |origin: &axum::http::HeaderValue, _: &axum::http::request::Parts| {
        origin.to_str().is_ok_and(|named| origins.iter().any(|origin| origin.matches(named)))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST])
        // Clients send many of their own, such as x-stainless-lang.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.into_iter().chain(rate_limits::NAMES).collect::<Vec<_>>())
        .allow_private_network(AllowPrivateNetwork::yes())
        .max_age(PREFLIGHT_MAX_AGE)
}

struct Loopback {
    address: SocketAddr,
    origins: Arc<[Origin]>,
}

async fn own_pages(State(loopback): State<Arc<Loopback>>, request: Request, next: Next) -> Result<Response, ApiError> {
    loopback.check(&request)?;
    Ok(next.run(request).await)
}

impl Loopback {
    /// Refuses a host that is not this machine, and a page that is not allowed: it could not read the answer, but what it
    /// asks for would be computed all the same.
    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let mut hosts = texts(request, header::HOST);
        hosts.extend(request.uri().authority().map(|authority| authority.as_str().to_owned()));
        if hosts.is_empty() && request.version() == Version::HTTP_11 {
            let message = "the request has no `Host`, which HTTP/1.1 requires";
            return Err(ApiError::body(StatusCode::BAD_REQUEST, message).code("missing_host"));
        }
        let foreign = |host: &&String| !is_own_host(host, self.address.ip(), &self.origins);
        if let Some(host) = hosts.iter().find(foreign) {
            let message = format!(
                "this endpoint listens on {} and does not answer as {:?}: call it as localhost or 127.0.0.1, or allow an \
                 origin of that name with --http-allow-origin",
                self.address,
                start(host)
            );
            return Err(ApiError::body(StatusCode::FORBIDDEN, message).code("host_not_allowed"));
        }
        let own = |page: &str| hosts.iter().any(|host| page.split_once("://").is_some_and(|(_, page)| page == host));
        let allowed = |page: &str| self.origins.iter().any(|allowed| allowed.matches(page));
        let pages = texts(request, header::ORIGIN);
        if let Some(page) = pages.iter().find(|page| !own(page) && !allowed(page)) {
            let message =
                format!("pages of {:?} may not call this endpoint; allow them with --http-allow-origin", start(page));
            return Err(ApiError::body(StatusCode::FORBIDDEN, message).code("origin_not_allowed"));
        }
        Ok(())
    }
}

fn texts(request: &Request, name: HeaderName) -> Vec<String> {
    let values = request.headers().get_all(name).iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

/// As much of a header as a message shows.
fn start(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, routing::post};

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
        // HTTP/1.0 has no such header, and no browser speaks it; HTTP/1.1 requires it.
        let router = router(&[], "127.0.0.1:8000", false);
        for (version, status) in [(Version::HTTP_10, 200), (Version::HTTP_11, 400)] {
            let request = Request::post("/v1/chat/completions").version(version).header(token.0, token.1);
            let request = request.body(Body::empty()).expect("a request");
            let answer = router.clone().oneshot(request).await.expect("an answer");
            assert_eq!(answer.status().as_u16(), status, "{version:?}");
        }
    }

    #[tokio::test]
    async fn on_loopback_the_page_is_looked_at() {
        let (token, host) = (("authorization", "Bearer t"), ("host", "localhost:8000"));
        for (origins, address, guarded, origin, status) in [
            (&["http://localhost:*"][..], "127.0.0.1:8000", false, "http://localhost:3000", 200),
            (&["http://localhost:*"], "127.0.0.1:8000", false, "https://evil.example", 403),
            (&["http://localhost:*"], "127.0.0.1:8000", false, "null", 403),
            (&["*"], "127.0.0.1:8000", false, "null", 200),
            (&[], "127.0.0.1:8000", false, "https://evil.example", 403),
            // A page that this endpoint's own address serves, through a proxy for example.
            (&[], "127.0.0.1:8000", false, "http://localhost:8000", 200),
            (&[], "127.0.0.1:8000", false, "http://localhost:3000", 403),
            // Behind a token, and in a network: there a page needs a token, or a preflight.
            (&[], "127.0.0.1:8000", true, "https://evil.example", 200),
            (&[], "0.0.0.0:8000", false, "https://evil.example", 200),
        ] {
            let router = router(origins, address, guarded);
            let answer = ask(&router, "POST", &[host, token, ("origin", origin)]).await;
            assert_eq!(answer.status().as_u16(), status, "{address} {origin}");
        }
    }

    #[tokio::test]
    async fn an_options_request_that_is_no_preflight_is_like_any_other() {
        let routes = Router::new().route("/v1/models", axum::routing::get(|| async { "ok" }));
        let origins = vec!["http://localhost:*".parse().expect("an origin")];
        let router = around(routes, origins, "0.0.0.0:8000".parse().expect("an address"), false);
        let page = [("origin", "http://localhost:3000"), ("access-control-request-method", "GET")];
        for (path, headers, status) in
            [("/nope", &[][..], 404), ("/nope", &page[..1], 404), ("/v1/models", &[], 405), ("/v1/models", &page, 200)]
        {
            let mut request = Request::options(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer =
                router.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("an answer");
            assert_eq!(answer.status().as_u16(), status, "{path} {headers:?}");
        }
    }
}

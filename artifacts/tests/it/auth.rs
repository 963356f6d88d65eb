//! The token flow, with a registry and a token server of our own that write down what they are told.

use std::sync::{Arc, Mutex};

use axum::{
    Form, Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::{Value, json};
use slm_artifacts::{Credentials, FetchError, Source};
use tokio::net::TcpListener;

use crate::{
    common::{fetch, sha256, store, with_digest},
    registry::MANIFEST,
};

const BLOB: &[u8] = b"weights";

#[derive(Clone, Default)]
struct TokenRegistry {
    host: String,
    /// Requests to the token server, one line each.
    told: Arc<Mutex<Vec<String>>>,
    realm: Option<&'static str>,
}

impl TokenRegistry {
    async fn start(realm: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = Self { host: listener.local_addr().unwrap().to_string(), realm, ..Self::default() };
        let app = Router::new()
            .route("/token", get(asked).post(exchanged))
            .route("/v2/team/lora/{kind}/{reference}", get(content))
            .with_state(served.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        served
    }

    async fn fetched(&self, credentials: Option<Credentials>) -> Result<(), FetchError> {
        let dir = tempfile::tempdir().unwrap();
        let source = Source { credentials, ..Source::new(format!("oci://{}/team/lora:v1", self.host)) };
        fetch(&store(dir.path()), &source).await.map(drop)
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

async fn asked(State(registry): State<TokenRegistry>, Query(query): Query<Value>, headers: HeaderMap) -> Response {
    let who = headers.get(header::AUTHORIZATION).map_or("nobody", |value| value.to_str().unwrap());
    registry.told.lock().unwrap().push(format!(
        "{who} {} {}",
        query["service"].as_str().unwrap(),
        query["scope"].as_str().unwrap()
    ));
    if who.ends_with("d3Jvbmc=") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(json!({"token": "good"})).into_response()
}

async fn exchanged(State(registry): State<TokenRegistry>, Form(form): Form<Value>) -> Response {
    registry.told.lock().unwrap().push(format!("{} {}", form["grant_type"], form["refresh_token"]).replace('"', ""));
    Json(json!({"access_token": "good"})).into_response()
}

async fn content(
    State(registry): State<TokenRegistry>,
    Path((kind, _)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != "Bearer good") {
        let realm = registry.realm.map_or_else(|| format!("http://{}/token", registry.host), str::to_owned);
        let challenge = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:team/lora:pull\"");
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    if kind == "blobs" {
        return BLOB.into_response();
    }
    let layer = json!({"mediaType": "application/x", "digest": sha256(BLOB), "size": BLOB.len(),
                       "annotations": {"org.opencontainers.image.title": "x.gguf"}});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": layer, "layers": [layer]});
    ([(header::CONTENT_TYPE, MANIFEST)], manifest.to_string()).into_response()
}

fn basic(password: &str) -> Option<Credentials> {
    Some(Credentials::Basic { username: "alice".to_owned(), password: password.to_owned() })
}

#[tokio::test]
async fn tokens_are_asked_for_once() {
    let registry = TokenRegistry::start(None).await;
    registry.fetched(None).await.unwrap();
    assert_eq!(registry.told(), ["nobody test repository:team/lora:pull"]);
    registry.fetched(basic("secret")).await.unwrap();
    assert_eq!(registry.told(), ["Basic YWxpY2U6c2VjcmV0 test repository:team/lora:pull"]);
    let config = format!(r#"{{"auths": {{"{}": {{"identitytoken": "refresh"}}}}}}"#, registry.host);
    registry.fetched(Some(Credentials::from_docker_config(&config).unwrap())).await.unwrap();
    assert_eq!(registry.told(), ["refresh_token refresh"]);
    registry.fetched(Some(Credentials::Bearer("good".to_owned()))).await.unwrap();
    assert_eq!(registry.told(), [""; 0]);
}

#[tokio::test]
async fn tokens_that_are_not_given() {
    let registry = TokenRegistry::start(None).await;
    for credentials in [basic("wrong"), Some(Credentials::Bearer("bad".to_owned()))] {
        let error = registry.fetched(credentials).await.unwrap_err();
        assert_eq!(error.reason(), "Unauthorized");
    }
    // A password is not sent to whoever a registry names.
    let registry = TokenRegistry::start(Some("http://192.0.2.1/token")).await;
    let error = registry.fetched(basic("secret")).await.unwrap_err();
    assert_eq!(error.reason(), "Insecure");
    assert!(error.to_string().contains("192.0.2.1 is not reached without TLS"), "{error}");
}

#[tokio::test]
async fn another_manifest_than_was_asked_for() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), TokenRegistry::start(None).await);
    // This registry answers with its one manifest, whatever the digest.
    let source = with_digest(&format!("oci://{}/team/lora:v1", registry.host), b"another manifest");
    let error = fetch(&store(dir.path()), &source).await.unwrap_err();
    assert_eq!(error.reason(), "DigestMismatch");
    assert!(error.to_string().contains("the manifest has digest sha256:"), "{error}");
}

//! A collection of Qdrant, over its HTTP API: cosine, vectors without a name, and the payload `source` and `text`.

use std::{collections::HashMap, time::Duration};

use reqwest::{Certificate, Client, Method, StatusCode, redirect::Policy};
use serde::Deserialize;
use serde_json::{Value, json};
use slm_crds::retrieve::Qdrant;

use crate::{Passage, Row, secrets::Secrets, store::StoreError};

/// Bytes of an answer: a page of ids, or 64 passages of an honest size.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Ids in one page.
const PAGE: usize = 1000;
/// Time for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Idle connections that are kept.
const IDLE_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct Collection {
    /// What it is, with its address.
    pub(crate) name: String,
    spec: Qdrant,
    client: Client,
    secrets: Secrets,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: T,
}

#[derive(Deserialize)]
struct Points {
    points: Vec<Point>,
    #[serde(default)]
    next_page_offset: Value,
}

#[derive(Deserialize)]
struct Point {
    id: Value,
    #[serde(default)]
    score: f64,
    #[serde(default)]
    payload: Option<Payload>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    source: String,
    text: String,
}

impl Collection {
    pub(crate) fn new(spec: &Qdrant, secrets: Secrets) -> Result<Self, StoreError> {
        let name = format!("the collection {} at {}", spec.collection, spec.url);
        let settings = |why: String| StoreError::Settings { store: name.clone(), why };
        // A key must not follow a redirect to where its Secret does not send it.
        let mut client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .pool_max_idle_per_host(IDLE_MAX);
        if let Some(bundle) = &spec.ca_bundle {
            let certificates = Certificate::from_pem_bundle(bundle.as_bytes());
            for certificate in certificates.map_err(|error| settings(format!("caBundle: {error}")))? {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client.build().map_err(|error| settings(error.to_string()))?;
        Ok(Self { name, spec: spec.clone(), client, secrets })
    }

    pub(crate) async fn search(&self, vector: &[f32], top: u32) -> Result<Vec<Passage>, StoreError> {
        let body = json!({ "query": vector, "limit": top, "with_payload": ["source", "text"] });
        let Answer { result }: Answer<Points> =
            self.usable(self.ask(Method::POST, "/points/query", Some(&body)).await?)?;
        let passage = |Point { id, score, payload }: Point| {
            let Payload { source, text } = payload.unwrap_or_default();
            Passage { id: shown(&id), source, text, score }
        };
        Ok(result.points.into_iter().map(passage).collect())
    }

    pub(crate) async fn prepare(&self, dimension: usize) -> Result<(), StoreError> {
        let found = self.send(Method::GET, "", None).await?;
        if found.0 == StatusCode::NOT_FOUND {
            let body = json!({ "vectors": { "size": dimension, "distance": "Cosine" } });
            return self.ask(Method::PUT, "", Some(&body)).await.map(drop);
        }
        let found = self.accepted(found)?;
        let vectors = &found["result"]["config"]["params"]["vectors"];
        let Some(size) = vectors["size"].as_u64() else {
            return Err(self.refused("its vectors have names; index into another collection".to_owned()));
        };
        let found = usize::try_from(size).unwrap_or(usize::MAX);
        match vectors["distance"].as_str() {
            _ if found != dimension => {
                Err(StoreError::Dimension { store: self.name.clone(), found, wanted: dimension })
            }
            Some("Cosine") => Ok(()),
            _ => Err(self.refused("its distance is not Cosine; index into another collection".to_owned())),
        }
    }

    pub(crate) async fn list(&self) -> Result<HashMap<String, String>, StoreError> {
        let mut all = HashMap::new();
        let mut offset = Value::Null;
        loop {
            let body = json!({ "limit": PAGE, "offset": offset, "with_payload": ["source"], "with_vector": false });
            let Answer { result }: Answer<Points> =
                self.usable(self.ask(Method::POST, "/points/scroll", Some(&body)).await?)?;
            let source = |point: &Point| point.payload.as_ref().map(|payload| payload.source.clone());
            all.extend(result.points.iter().map(|point| (shown(&point.id), source(point).unwrap_or_default())));
            if result.next_page_offset.is_null() || result.next_page_offset == offset {
                return Ok(all);
            }
            offset = result.next_page_offset;
        }
    }

    pub(crate) async fn put(&self, rows: &[Row]) -> Result<(), StoreError> {
        let point = |row: &Row| {
            let payload = json!({ "source": row.source, "text": row.text });
            json!({ "id": row.id, "vector": row.vector, "payload": payload })
        };
        let body = json!({ "points": rows.iter().map(point).collect::<Vec<_>>() });
        self.ask(Method::PUT, "/points?wait=true", Some(&body)).await.map(drop)
    }

    pub(crate) async fn remove(&self, ids: &[String]) -> Result<(), StoreError> {
        self.ask(Method::POST, "/points/delete?wait=true", Some(&json!({ "points": ids }))).await.map(drop)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, StoreError> {
        self.accepted(self.send(method, path, body).await?)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value), StoreError> {
        let Qdrant { url, collection, secret_ref, .. } = &self.spec;
        let url = format!("{}/collections/{collection}{path}", url.trim_end_matches('/'));
        let mut request = self.client.request(method, url);
        if let Some(secret) = secret_ref {
            let settings = |why: String| StoreError::Settings { store: self.name.clone(), why };
            let entries = self.secrets.entries(&secret.name, &self.spec.url).await.map_err(settings)?;
            let token = entries.get("token");
            let token = token.ok_or_else(|| settings(format!("Secret {}: `token` is missing", secret.name)))?;
            request = request.header("api-key", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        // Without the URL, which the store's name has.
        let unreachable = |error: reqwest::Error| {
            let error = error.without_url();
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            StoreError::Unreachable { store: self.name.clone(), why: format!("{error}{cause}") }
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.refused(format!("its answer has more than {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((response.status(), serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    fn accepted(&self, (status, body): (StatusCode, Value)) -> Result<Value, StoreError> {
        if status.is_success() {
            return Ok(body);
        }
        let said: String = body["status"]["error"].as_str().unwrap_or_default().chars().take(300).collect();
        let why = format!("{status} {said}").trim_end().to_owned();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(StoreError::Unreachable { store: self.name.clone(), why });
        }
        Err(self.refused(why))
    }

    fn usable<T: for<'de> Deserialize<'de>>(&self, body: Value) -> Result<T, StoreError> {
        serde_json::from_value(body).map_err(|error| self.refused(format!("it gave no usable answer: {error}")))
    }

    fn refused(&self, why: String) -> StoreError {
        StoreError::Refused { store: self.name.clone(), why }
    }
}

/// An id is a number or a UUID.
fn shown(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

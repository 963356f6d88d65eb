//! In-memory API server for tests, reached by a real client. It can be slow, refuse writes, and be unreachable.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::time::sleep;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    delay: Duration,
    /// Status codes for the next writes.
    failures: Vec<u16>,
    /// Method and path of every accepted write, latest last.
    written: Vec<String>,
}

/// Handle of the server. Clones share one server.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

impl Server {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "n")
    }

    /// Stores an object.
    pub(crate) fn put(&self, path: &str, object: Value) {
        let mut state = self.state();
        state.version += 1;
        let object = versioned(object, state.version);
        state.objects.insert(path.to_owned(), object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// Delays every answer from now on; the request takes effect at the end of the delay.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Refuses the next write with this code; calls add up.
    pub(crate) fn refuse(&self, code: u16) {
        self.state().failures.push(code);
    }

    pub(crate) fn writes(&self) -> usize {
        self.state().written.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let delay = self.state().delay;
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        sleep(delay).await;
        let (code, answer) = self.state().take(&head.method, head.uri.path(), body);
        let answer = serde_json::to_vec(&answer).unwrap_or_default();
        let mut response = Response::new(Body::from(answer));
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        response
    }
}

impl State {
    fn take(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        if method == Method::GET {
            return self.objects.get(path).map_or_else(|| refusal(404), |object| (200, object.clone()));
        }
        if !self.failures.is_empty() {
            return refusal(self.failures.remove(0));
        }
        // The status subresource is stored within its object.
        let status = path.ends_with("/status");
        let mut path = path.trim_end_matches("/status").to_owned();
        let next = if method == Method::POST {
            path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
            if self.objects.contains_key(&path) {
                return refusal(409);
            }
            body
        } else {
            let Some(before) = self.objects.get(&path) else { return refusal(404) };
            let expected = &body["metadata"]["resourceVersion"];
            if !expected.is_null() && *expected != before["metadata"]["resourceVersion"] {
                return refusal(409);
            }
            let mut next = before.clone();
            if *method == Method::PATCH {
                merge(&mut next, if status { json!({ "status": body["status"] }) } else { body });
            } else {
                next = body;
            }
            next
        };
        self.version += 1;
        let next = versioned(next, self.version);
        self.objects.insert(path.clone(), next.clone());
        self.written.push(format!("{method} {path}"));
        (200, next)
    }
}

fn versioned(mut object: Value, version: u64) -> Value {
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    object
}

fn refusal(code: u16) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": if code == 404 { "NotFound" } else { "Refused" }, "message": format!("refused with {code}"),
    });
    (code, status)
}

/// A merge patch.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

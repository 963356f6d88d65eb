//! A scripted endpoint: it answers each request with the next of its answers, and keeps what it was asked.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Response, StatusCode},
    routing::post,
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What it answers.
#[derive(Clone)]
pub(crate) enum Script {
    /// A stream of these events, cut into pieces of so many bytes; it ends there.
    Stream(Vec<String>, usize),
    /// A status, headers and a body.
    Status(u16, Vec<(&'static str, &'static str)>, String),
    /// These events, then silence.
    Hang(Vec<String>),
}

#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

pub(crate) struct Endpoint {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Endpoint {
    pub(crate) async fn start(script: impl IntoIterator<Item = Script>) -> Self {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let record = Arc::clone(&asked);
        let answer = move |headers: HeaderMap, body: Bytes| {
            let authorization = headers.get("authorization").map(|it| it.to_str().unwrap().to_owned());
            let body = serde_json::from_slice(&body).expect("JSON");
            record.lock().unwrap().push(Asked { authorization, body });
            let next = {
                let mut script = script.lock().unwrap();
                // The last answer is that to all further requests.
                if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
            };
            std::future::ready(response(next.expect("an answer")))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let app = Router::new().route("/v1/chat/completions", post(answer));
        let serving = AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));
        Self { url, asked, _serving: serving }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn response(script: Script) -> Response<Body> {
    let streamed = |body| Response::builder().header("content-type", "text/event-stream").body(body).unwrap();
    let text = |events: &[String]| events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>();
    match script {
        Script::Status(status, headers, body) => {
            let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Script::Stream(events, piece) => {
            let bytes = Bytes::from(text(&events));
            let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok::<_, Infallible>(bytes.slice_ref(piece))).collect();
            streamed(Body::from_stream(stream::iter(pieces)))
        }
        Script::Hang(events) => {
            let first = stream::iter([Ok::<_, Infallible>(Bytes::from(text(&events)))]);
            streamed(Body::from_stream(first.chain(stream::pending())))
        }
    }
}

/// A chunk with this delta.
pub(crate) fn delta(delta: Value) -> String {
    json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] }).to_string()
}

/// The end of an answer of seven tokens to a prompt of twelve.
pub(crate) fn end(reason: &str) -> Vec<String> {
    vec![
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] }).to_string(),
        json!({ "choices": [], "usage": { "prompt_tokens": 12, "completion_tokens": 7 } }).to_string(),
        "[DONE]".to_owned(),
    ]
}

/// A whole answer of these words.
pub(crate) fn said(words: &[&str]) -> Vec<String> {
    let role = delta(json!({ "role": "assistant", "content": "" }));
    let words = words.iter().map(|word| delta(json!({ "content": word })));
    [role].into_iter().chain(words).chain(end("stop")).collect()
}

//! A web server that does as it is told: cuts connections, ignores ranges, changes its mind.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// Behaviour of the server.
pub struct Script {
    pub content: Bytes,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// Whether it knows ranges.
    pub ranges: bool,
    /// Answers before any others: a status and headers.
    pub refusals: VecDeque<(u16, Vec<(&'static str, String)>)>,
    /// After how many bytes of the body to cut the next connections.
    pub cuts: VecDeque<usize>,
    /// Content of the file after the next connection that is cut.
    pub then: Option<Bytes>,
    /// After how many bytes to pause until [`FileServer::release`].
    pub hold_after: Option<usize>,
    /// The bytes of each piece, and the time between two.
    pub trickle: Option<(usize, Duration)>,
    /// Whether requests are left without an answer.
    pub silent: bool,
    /// Without a `Content-Length`.
    pub chunked: bool,
    /// The headers of every request, in order.
    pub seen: Vec<HeaderMap>,
}

/// A server for one file, whatever path is asked for.
pub struct FileServer {
    pub host: String,
    script: Arc<Mutex<Script>>,
    released: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Served {
    script: Arc<Mutex<Script>>,
    released: watch::Receiver<bool>,
}

impl FileServer {
    pub async fn start(content: impl Into<Bytes>) -> Self {
        let script = Arc::new(Mutex::new(Script {
            content: content.into(),
            etag: Some("\"one\"".to_owned()),
            last_modified: None,
            ranges: true,
            refusals: VecDeque::new(),
            cuts: VecDeque::new(),
            then: None,
            hold_after: None,
            trickle: None,
            silent: false,
            chunked: false,
            seen: Vec::new(),
        }));
        let (released, receiver) = watch::channel(false);
        let served = Served { script: Arc::clone(&script), released: receiver };
        let app = Router::new().fallback(answer).with_state(served);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { host, script, released, serving }
    }

    pub fn uri(&self, name: &str) -> String {
        format!("http://{}/files/{name}", self.host)
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Lets those go on that are held.
    pub fn release(&self) {
        self.script().hold_after = None;
        self.released.send_replace(true);
    }

    /// Of every request so far, that header.
    pub fn seen(&self, name: &str) -> Vec<Option<String>> {
        let text = |headers: &HeaderMap| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        self.script().seen.iter().map(text).collect()
    }

    /// Goes away: who asks is refused the connection.
    pub async fn stop(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

async fn answer(State(served): State<Served>, request: Request) -> Response {
    if served.script.lock().unwrap().silent {
        std::future::pending::<()>().await;
    }
    let mut script = served.script.lock().unwrap();
    script.seen.push(request.headers().clone());
    if let Some((status, headers)) = script.refusals.pop_front() {
        let mut response = StatusCode::from_u16(status).unwrap().into_response();
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
        }
        return response;
    }
    let asked = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    if script.etag.is_some() && asked(header::IF_NONE_MATCH) == script.etag {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let same = asked(header::IF_RANGE)
        .is_none_or(|tag| script.etag.as_ref() == Some(&tag) || script.last_modified.as_ref() == Some(&tag));
    let start = asked(header::RANGE).filter(|_| script.ranges && same);
    let start =
        start.map(|range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse::<usize>().unwrap());
    let total = script.content.len();
    if start.is_some_and(|start| start >= total) {
        let range = [(header::CONTENT_RANGE, format!("bytes */{total}"))];
        return (StatusCode::RANGE_NOT_SATISFIABLE, range).into_response();
    }
    let body = script.content.slice(start.unwrap_or(0)..);
    let cut = script.cuts.pop_front();
    if let Some(then) = cut.and_then(|_| script.then.take()) {
        script.content = then;
    }
    let mut response =
        Response::new(paced(body.clone(), cut, script.hold_after, script.trickle, served.released.clone()));
    let headers = response.headers_mut();
    if !script.chunked {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    for (name, value) in [(header::ETAG, &script.etag), (header::LAST_MODIFIED, &script.last_modified)] {
        if let Some(value) = value {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
    }
    if let Some(start) = start {
        let range = format!("bytes {start}-{}/{total}", total - 1);
        headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&range).unwrap());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// A body in small pieces, which ends early with an error, or pauses.
pub fn paced(
    body: Bytes,
    cut: Option<usize>,
    hold: Option<usize>,
    trickle: Option<(usize, Duration)>,
    mut released: watch::Receiver<bool>,
) -> Body {
    let piece = trickle.map_or(8 << 10, |(piece, _)| piece);
    let mut metronome = trickle.map(|(_, period)| tokio::time::interval(period));
    let (pieces, receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(1);
    tokio::spawn(async move {
        let mut sent = 0;
        while sent < body.len() {
            if cut.is_some_and(|cut| sent >= cut) {
                // Another task gets to write what has been sent before the connection is cut.
                let _ = pieces.send(Err(io::Error::other("cut"))).await;
                return;
            }
            if hold.is_some_and(|hold| sent >= hold) {
                let _ = released.wait_for(|released| *released).await;
            }
            let mut next = body.len().min(sent + piece);
            for edge in [cut, hold].into_iter().flatten().filter(|edge| *edge > sent) {
                next = next.min(edge);
            }
            if pieces.send(Ok(body.slice(sent..next))).await.is_err() {
                return;
            }
            sent = next;
            if let Some(metronome) = &mut metronome {
                metronome.tick().await;
            }
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

//! A stand-in for a Hub: its API and its storage on another port, to which it redirects, as huggingface.co does.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::server::paced;

/// Files above this size are in large file storage.
const LARGE: usize = 1000;
/// Files of a page.
const PAGE: usize = 2;

/// What the Hub has, and what was asked of it.
#[derive(Default)]
pub struct Contents {
    /// Files by commit.
    pub commits: BTreeMap<String, BTreeMap<String, Bytes>>,
    /// Commits by branch.
    pub branches: BTreeMap<String, String>,
    /// The token that it asks for.
    pub token: Option<String>,
    /// An answer to every request, as its code and status.
    pub refuses: Option<(&'static str, u16)>,
    /// After how many bytes to cut the next downloads from storage.
    pub cuts: VecDeque<usize>,
    /// What the listing says instead of the true SHA-1 of small files.
    pub wrong_blob: Option<String>,
    /// Paths that were asked for, with `?` and the query.
    pub seen: Vec<String>,
    /// Headers of the requests to the storage.
    pub storage_seen: Vec<HeaderMap>,
}

/// The two servers.
pub struct HubServer {
    pub endpoint: String,
    contents: Arc<Mutex<Contents>>,
    serving: [JoinHandle<()>; 2],
}

#[derive(Clone)]
struct Served {
    contents: Arc<Mutex<Contents>>,
    storage: String,
}

async fn listen(app: Router) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
}

impl HubServer {
    /// A repository `org/repo` with these files on `main`.
    pub async fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let contents = Arc::new(Mutex::new(Contents::default()));
        let app = Router::new().route("/blobs/{digest}", get(blob)).with_state(Arc::clone(&contents));
        let (storage, first) = listen(app).await;
        let served = Served { contents: Arc::clone(&contents), storage: format!("http://{storage}") };
        let app = Router::new()
            .route("/api/models/org/repo/revision/{revision}", get(revision))
            .route("/api/models/org/repo/tree/{commit}", get(tree))
            .route("/org/repo/resolve/{commit}/{*path}", get(resolve))
            .fallback(async || error("RepoNotFound", 401))
            .with_state(served);
        let (address, second) = listen(app).await;
        let server = Self { endpoint: format!("http://{address}"), contents, serving: [first, second] };
        server.publish("main", files);
        server
    }

    /// A new commit of a branch. Gives it.
    pub fn publish(&self, branch: &str, files: &[(&str, Vec<u8>)]) -> String {
        let mut contents = self.contents();
        let commit = format!("{:040x}", contents.commits.len() + 0xabc);
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), Bytes::from(bytes.clone())));
        contents.commits.insert(commit.clone(), files.collect());
        contents.branches.insert(branch.to_owned(), commit.clone());
        commit
    }

    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap()
    }

    /// Goes away: who asks is refused the connection.
    pub async fn stop(self) {
        for serving in self.serving {
            serving.abort();
            let _ = serving.await;
        }
    }
}

fn error(code: &'static str, status: u16) -> Response {
    let headers = [("x-error-code", code), ("x-error-message", "said for people")];
    (StatusCode::from_u16(status).unwrap(), headers).into_response()
}

impl Served {
    /// The contents, unless the Hub refuses.
    #[expect(clippy::result_large_err, reason = "an answer")]
    fn asked(&self, headers: &HeaderMap, path: String) -> Result<MutexGuard<'_, Contents>, Response> {
        let mut contents = self.contents.lock().unwrap();
        contents.seen.push(path);
        if let Some((code, status)) = contents.refuses {
            return Err(error(code, status));
        }
        let token = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        if contents.token.is_some() && contents.token.as_ref().map(|token| format!("Bearer {token}")) != token {
            return Err(error("RepoNotFound", 401));
        }
        Ok(contents)
    }
}

async fn revision(State(served): State<Served>, Path(revision): Path<String>, headers: HeaderMap) -> Response {
    let contents = match served.asked(&headers, format!("revision {revision}")) {
        Ok(contents) => contents,
        Err(response) => return response,
    };
    let commit = contents.branches.get(&revision).cloned();
    match commit.or_else(|| contents.commits.contains_key(&revision).then_some(revision)) {
        Some(commit) => Json(json!({ "sha": commit, "modelId": "org/repo" })).into_response(),
        None => error("RevisionNotFound", 404),
    }
}

async fn tree(
    State(served): State<Served>,
    Path(commit): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let contents = match served.asked(&headers, format!("tree {commit}")) {
        Ok(contents) => contents,
        Err(response) => return response,
    };
    assert_eq!(query.get("recursive").map(String::as_str), Some("true"));
    let Some(files) = contents.commits.get(&commit) else { return error("RevisionNotFound", 404) };
    let begin: usize = query.get("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let mut items: Vec<Value> = files.iter().map(|(path, bytes)| item(path, bytes, &contents)).collect();
    items.push(json!({ "type": "directory", "oid": "0".repeat(40), "size": 0, "path": "sub" }));
    let page: Vec<Value> = items.iter().skip(begin).take(PAGE).cloned().collect();
    let mut response = Json(page).into_response();
    if begin + PAGE < items.len() {
        let next = format!("</api/models/org/repo/tree/{commit}?recursive=true&cursor={}>; rel=\"next\"", begin + PAGE);
        response.headers_mut().insert(header::LINK, HeaderValue::from_str(&next).unwrap());
    }
    response
}

fn item(path: &str, bytes: &Bytes, contents: &Contents) -> Value {
    let blob = contents.wrong_blob.clone().unwrap_or_else(|| git_blob(bytes));
    let mut item = json!({ "type": "file", "oid": blob, "size": bytes.len(), "path": path });
    if bytes.len() > LARGE {
        item["lfs"] = json!({ "oid": hex::encode(Sha256::digest(bytes)), "size": bytes.len(), "pointerSize": 134 });
        item["xetHash"] = "0".repeat(64).into();
    }
    item
}

/// By git itself.
fn git_blob(bytes: &[u8]) -> String {
    let mut git = std::process::Command::new("git")
        .args(["hash-object", "--stdin"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    git.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(git.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

async fn resolve(
    State(served): State<Served>,
    Path((commit, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let contents = match served.asked(&headers, format!("resolve {path}")) {
        Ok(contents) => contents,
        Err(response) => return response,
    };
    let Some(bytes) = contents.commits.get(&commit).and_then(|files| files.get(&path)) else {
        return error("EntryNotFound", 404);
    };
    if bytes.len() <= LARGE {
        return bytes.clone().into_response();
    }
    let to = format!("{}/blobs/{}?signature=secret", served.storage, hex::encode(Sha256::digest(bytes)));
    (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
}

async fn blob(State(contents): State<Arc<Mutex<Contents>>>, Path(digest): Path<String>, request: Request) -> Response {
    let mut contents = contents.lock().unwrap();
    contents.storage_seen.push(request.headers().clone());
    let mut all = contents.commits.values().flat_map(BTreeMap::values);
    let found = all.find(|bytes| hex::encode(Sha256::digest(bytes)) == digest).cloned();
    let Some(bytes) = found else { return StatusCode::NOT_FOUND.into_response() };
    let range = request.headers().get(header::RANGE).map(|value| value.to_str().unwrap());
    let start = range.map_or(0, |range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let rest = bytes.slice(start..);
    let total = bytes.len();
    let cut = contents.cuts.pop_front();
    let length = rest.len();
    let body = paced(rest, cut, None, None, watch::channel(false).1);
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{}/{total}", total - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, HeaderValue::from_str(&range).unwrap());
    }
    response
}

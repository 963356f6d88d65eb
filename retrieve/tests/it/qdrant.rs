//! A stand-in of Qdrant, after the documentation of its HTTP API: what this crate asks of one collection, no more. A real Qdrant was not tried.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post, put},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[derive(Default)]
struct Collection {
    size: Option<u64>,
    points: BTreeMap<String, Value>,
}

type Shared = State<Arc<Mutex<Collection>>>;
type Answer = (StatusCode, Json<Value>);

/// Its URL. The key is `k3y`, the collection `docs`.
pub(crate) async fn start() -> String {
    let app = Router::new()
        .route("/collections/docs", get(described).put(made))
        .route("/collections/docs/points", put(stored))
        .route("/collections/docs/points/query", post(found))
        .route("/collections/docs/points/scroll", post(listed))
        .route("/collections/docs/points/delete", post(removed))
        .with_state(Arc::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn answer(headers: &HeaderMap, result: Option<Value>) -> Answer {
    if headers.get("api-key").is_none_or(|key| key != "k3y") {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "status": { "error": "Invalid API key" } })));
    }
    match result {
        Some(result) => (StatusCode::OK, Json(json!({ "result": result, "status": "ok", "time": 0.0 }))),
        None => {
            let error = "Not found: Collection `docs` doesn't exist!";
            (StatusCode::NOT_FOUND, Json(json!({ "status": { "error": error }, "time": 0.0 })))
        }
    }
}

async fn described(State(shared): Shared, headers: HeaderMap) -> Answer {
    let size = shared.lock().expect("a lock").size;
    let vectors = |size| json!({ "config": { "params": { "vectors": { "size": size, "distance": "Cosine" } } } });
    answer(&headers, size.map(vectors))
}

async fn made(State(shared): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    assert_eq!(body["vectors"]["distance"], "Cosine");
    shared.lock().expect("a lock").size = body["vectors"]["size"].as_u64();
    answer(&headers, Some(json!(true)))
}

async fn stored(State(shared): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let mut collection = shared.lock().expect("a lock");
    for point in body["points"].as_array().expect("points") {
        collection.points.insert(point["id"].as_str().expect("an id").to_owned(), point.clone());
    }
    answer(&headers, Some(json!({ "operation_id": 0, "status": "completed" })))
}

async fn found(State(shared): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let collection = shared.lock().expect("a lock");
    if collection.size.is_none() {
        return answer(&headers, None);
    }
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().expect("a vector").iter().map(|number| number.as_f64().expect("a number")).collect()
    };
    let cosine = |point: &Value| {
        let (a, b) = (numbers(&body["query"]), numbers(&point["vector"]));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    let mut scored: Vec<(f64, &Value)> = collection.points.values().map(|point| (cosine(point), point)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let limit = usize::try_from(body["limit"].as_u64().expect("a limit")).expect("a limit");
    let point = |(score, point): &(f64, &Value)| json!({ "id": point["id"], "version": 1, "score": score, "payload": point["payload"] });
    answer(&headers, Some(json!({ "points": scored.iter().take(limit).map(point).collect::<Vec<_>>() })))
}

/// Two at a time, to be paged through.
async fn listed(State(shared): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let collection = shared.lock().expect("a lock");
    let from = body["offset"].as_str().unwrap_or_default().to_owned();
    let mut rest = collection.points.range(from..).map(|(_, point)| point);
    let page: Vec<Value> =
        rest.by_ref().take(2).map(|it| json!({ "id": it["id"], "payload": it["payload"] })).collect();
    let next = rest.next().map_or(Value::Null, |point| point["id"].clone());
    answer(&headers, Some(json!({ "points": page, "next_page_offset": next })))
}

async fn removed(State(shared): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let mut collection = shared.lock().expect("a lock");
    for id in body["points"].as_array().expect("points") {
        collection.points.remove(id.as_str().expect("an id"));
    }
    answer(&headers, Some(json!({ "operation_id": 1, "status": "completed" })))
}

//! Shadows: what a candidate says of copies, and that callers notice nothing of it.

use serde_json::{Value, json};
use slm_router::Swarm;

use crate::{
    egress::ScriptedEgress,
    harness::{Router, chat, limits, swarm},
    worker::Worker,
};

/// A router of the route `watched`: banking, and copies of so many percent to `to`.
async fn router(worker: &Worker, to: &Value, percent: f64, more: &Value, egress: Option<&ScriptedEgress>) -> Router {
    let mut swarm = serde_json::to_value(swarm(&[worker])).expect("JSON");
    if let Some(egress) = egress {
        (swarm["externals"], swarm["egress"]) = (json!([{ "name": "large" }]), json!([egress.url]));
    }
    let fallback = json!({ "kind": "LoraAdapter", "name": "banking" });
    let mut spec = json!({ "shadow": { "to": to, "percent": percent }, "fallback": fallback });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    swarm["routes"].as_array_mut().expect("a list").push(json!({ "name": "watched", "spec": spec }));
    let swarm: Swarm = serde_json::from_value(swarm).expect("a swarm");
    let router = Router::start(swarm, limits()).await;
    router.ready().await;
    router
}

async fn worker() -> Worker {
    Worker::start("smol", &["banking", "travel"]).await
}

fn travel() -> Value {
    json!({ "kind": "LoraAdapter", "name": "travel" })
}

async fn ask(router: &Router, text: &str) -> Value {
    let answer: Value = router.post("/v1/chat/completions", chat("watched", text)).await.json().await.expect("JSON");
    assert!(answer["choices"].is_array(), "{answer}");
    answer
}

fn said(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().expect("a text").trim()
}

/// Waits until so many copies have come to `result`.
async fn wait(router: &Router, to: &str, result: &str, count: u32) {
    let line = format!("slm_router_shadow_total{{route=\"watched\",to=\"{to}\",result=\"{result}\"}} {count}");
    loop {
        let metrics = router.raw("/metrics").await.text().await.expect("text");
        if metrics.lines().any(|other| other == line) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_candidate_is_compared_and_never_heard() {
    let worker = worker().await;
    let router = router(&worker, &travel(), 100.0, &json!({}), None).await;
    let answer = ask(&router, "banking=Yes travel=yes.").await;
    assert_eq!((said(&answer), &answer["usage"]["prompt_tokens"]), ("Yes", &json!(3)));
    wait(&router, "travel", "agree", 1).await;
    assert_eq!(said(&ask(&router, "banking=Yes travel=no").await), "Yes");
    wait(&router, "travel", "differ", 1).await;
    assert_eq!(said(&ask(&router, "banking=Yes travel=!break").await), "Yes");
    wait(&router, "travel", "failed", 1).await;
    // After everybody else, and in nobody's share.
    let requests = worker.script.requests.lock().expect("no panic").clone();
    let of = |name: &str| -> Vec<(String, i32)> {
        let of = requests.iter().filter(|(request, _)| request.model == name);
        of.map(|(request, _)| (request.tenant.clone(), request.priority)).collect()
    };
    assert_eq!(of("banking"), vec![(String::new(), 0); 3]);
    assert_eq!(of("travel")[..2], [("shadow".to_owned(), i32::MAX), ("shadow".to_owned(), i32::MAX)]);

    let mut body = chat("watched", "banking=a");
    body["explain"] = true.into();
    let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
    let candidates = answer["x_slm_decision"]["candidates"].as_array().expect("a list");
    let last = candidates.last().expect("a candidate");
    assert_eq!(
        json!([last["expert"]["name"], last["rule"], last["outcome"]]),
        json!(["travel", "shadow", "not_asked"])
    );
    assert_eq!(last["why_not"], "it gets copies of 100 % of the requests, and its answers are never given");
}

#[tokio::test]
async fn nothing_is_copied_of_no_percent_or_of_what_breaks() {
    let worker = worker().await;
    let never = router(&worker, &travel(), 0.0, &json!({}), None).await;
    let always = router(&worker, &travel(), 100.0, &json!({}), None).await;
    assert_eq!(said(&ask(&never, "hello").await), "banking: hello");
    let response = always.post("/v1/chat/completions", chat("watched", "hello !break")).await;
    assert_eq!(response.status(), 503);
    let requests = worker.script.requests.lock().expect("no panic").clone();
    assert!(requests.iter().all(|(request, _)| request.model == "banking"), "{requests:?}");
    // An answer that is too long to be compared.
    assert_eq!(said(&ask(&always, "banking=!much").await).len(), 1 << 20);
    wait(&always, "travel", "skipped", 1).await;
}

#[tokio::test]
async fn copies_that_have_no_place_are_not_sent() {
    let worker = worker().await;
    let router = router(&worker, &travel(), 100.0, &json!({}), None).await;
    for _ in 0..32 {
        assert_eq!(said(&ask(&router, "banking=a travel=!gate").await), "a");
    }
    assert_eq!(said(&ask(&router, "banking=a travel=!gate").await), "a");
    wait(&router, "travel", "skipped", 1).await;
    worker.script.gate.send_replace(true);
    wait(&router, "travel", "differ", 32).await;
    assert_eq!(said(&ask(&router, "banking=a travel=a").await), "a");
    wait(&router, "travel", "agree", 1).await;
}

#[tokio::test]
async fn a_copy_reaches_what_its_request_may_reach() {
    let (worker, egress) = (worker().await, ScriptedEgress::start().await);
    let large = json!({ "kind": "ExternalModel", "name": "large" });
    let redacted = json!({ "dataPolicy": "Redacted" });
    let router = router(&worker, &large, 100.0, &redacted, Some(&egress)).await;
    ask(&router, "banking=a large=a").await;
    wait(&router, "large", "agree", 1).await;
    let left = egress.left();
    assert_eq!(left.iter().map(|it| (it.redact, it.route.as_str())).collect::<Vec<_>>(), [(true, "watched")]);
    // A request that is stricter than its route.
    let mut body = chat("watched", "banking=a large=a");
    body["metadata"] = json!({ "data_policy": "LocalOnly" });
    assert_eq!(router.post("/v1/chat/completions", body).await.status(), 200);
    wait(&router, "large", "failed", 1).await;
    assert!(egress.left().is_empty());
}

#[tokio::test]
async fn an_ensemble_may_have_a_shadow() {
    let worker = worker().await;
    let targets = json!([{ "kind": "LoraAdapter", "name": "banking" }, { "kind": "SlmModel", "name": "smol" }]);
    let more = json!({ "ensemble": { "experts": targets, "combine": "Best" } });
    let router = router(&worker, &travel(), 100.0, &more, None).await;
    assert_eq!(said(&ask(&router, "banking=a~-1 smol=b~-0.1 travel=b").await), "b");
    wait(&router, "travel", "agree", 1).await;
    let explain = router.post("/v1/chat/completions", chat("watched", "banking=a smol=b travel=c")).await;
    assert_eq!(explain.status(), 200);
    wait(&router, "travel", "differ", 1).await;
}

//! What may leave the swarm: by routes, tokens, routers and requests; by fallbacks, rules and cascades.

use std::time::Duration;

use serde_json::{Value, json};
use slm_crds::route::DataPolicy;
use slm_router::{Limits, Swarm};

use crate::{
    egress::ScriptedEgress,
    guarded::{Certificate, OPS, TEAM, client, guarded_config, mount},
    harness::{Router, chat, config, limits, swarm},
    worker::Worker,
};

/// Routes of each policy: `NAME-out` falls back to a model outside, `NAME-ladder` asks it for what banking is not sure of.
fn with_routes(worker: &Worker, egress: Option<&ScriptedEgress>) -> Swarm {
    let mut swarm = serde_json::to_value(swarm(&[worker])).expect("JSON");
    swarm["externals"] = json!([{ "name": "large" }]);
    swarm["egress"] = egress.map(|egress| json!([egress.url])).unwrap_or(json!([]));
    let outside = json!({ "kind": "ExternalModel", "name": "large" });
    let banking = json!({ "kind": "LoraAdapter", "name": "banking" });
    let routes = swarm["routes"].as_array_mut().expect("a list");
    for policy in DataPolicy::ALL {
        let name = policy.to_string().to_lowercase();
        let rules = json!([{ "when": "text.contains('money')", "to": banking }]);
        let spec = json!({ "dataPolicy": policy, "rules": rules, "fallback": outside });
        routes.push(json!({ "name": format!("{name}-out"), "spec": spec }));
        let cascade = json!({ "targets": [banking, outside], "confidence": { "accept": 0.5 } });
        let spec = json!({ "dataPolicy": policy, "cascade": cascade, "fallback": banking });
        routes.push(json!({ "name": format!("{name}-ladder"), "spec": spec }));
    }
    serde_json::from_value(swarm).expect("a swarm")
}

async fn start() -> (Router, Worker, ScriptedEgress) {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let egress = ScriptedEgress::start().await;
    let router = Router::start(with_routes(&worker, Some(&egress)), limits()).await;
    router.ready().await;
    (router, worker, egress)
}

/// Status, and the answer's text or the error's message.
async fn ask(router: &Router, mut body: Value, more: Value) -> (u16, String) {
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let response = router.post("/v1/chat/completions", body).await;
    let status = response.status().as_u16();
    let answer: Value = response.json().await.expect("JSON");
    let said = answer["choices"][0]["message"]["content"].as_str().or(answer["error"]["message"].as_str());
    (status, said.unwrap_or_else(|| panic!("{answer}")).trim().to_owned())
}

#[tokio::test]
async fn a_route_that_may_leave_leaves_with_its_errand() {
    let (router, _worker, egress) = start().await;
    let body = chat("allowexternal-out", "hello");
    let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"].as_str().map(str::trim), Some("large: hello"));
    assert_eq!(answer["usage"]["cost"], 0.25, "{answer}");
    let left = egress.left();
    let [external] = left.as_slice() else { panic!("{left:?}") };
    assert_eq!((external.route.as_str(), external.redact), ("allowexternal-out", false));
    assert_eq!(external.reason, "no rule matched: fallback");
    assert_eq!(external.request.as_ref().map(|request| request.model.as_str()), Some("large"));

    assert_eq!(ask(&router, chat("redacted-out", "hello"), json!({})).await, (200, "large: hello".to_owned()));
    assert!(egress.left().iter().all(|external| external.redact));
    assert_eq!(ask(&router, chat("redacted-out", "my money"), json!({})).await, (200, "banking: my money".to_owned()));
    assert!(egress.left().is_empty());
}

#[tokio::test]
async fn a_local_route_never_leaves() {
    let (router, _worker, egress) = start().await;
    let (status, message) = ask(&router, chat("localonly-out", "hello"), json!({})).await;
    assert_eq!(status, 403, "{message}");
    assert!(message.starts_with("`large` is outside of the swarm, and the data policy of this request is LocalOnly"));
    // The small one's answer is given, however unsure.
    let vague = ask(&router, chat("localonly-ladder", "hello !vague"), json!({})).await;
    assert_eq!(vague, (200, "banking: hello !vague".to_owned()));
    assert!(egress.left().is_empty());
}

#[tokio::test]
async fn a_cascade_asks_outside_last_and_as_the_caller_did() {
    let (router, _worker, egress) = start().await;
    let sure = ask(&router, chat("allowexternal-ladder", "hello"), json!({})).await;
    assert_eq!(sure, (200, "banking: hello".to_owned()));
    assert!(egress.left().is_empty());
    let vague = ask(&router, chat("allowexternal-ladder", "hello !vague"), json!({})).await;
    assert_eq!(vague, (200, "large: hello !vague".to_owned()));
    let left = egress.left();
    assert_eq!(left.iter().map(|it| it.request.as_ref().and_then(|it| it.logprobs)).collect::<Vec<_>>(), [None]);
}

#[tokio::test]
async fn a_request_may_be_stricter_and_nothing_else() {
    let (router, _worker, egress) = start().await;
    let policy = |word: &str| json!({ "metadata": { "data_policy": word } });
    assert_eq!(ask(&router, chat("allowexternal-out", "a"), policy("LocalOnly")).await.0, 403);
    assert_eq!(ask(&router, chat("localonly-out", "a"), policy("AllowExternal")).await.0, 403);
    assert!(egress.left().is_empty());
    assert_eq!(ask(&router, chat("allowexternal-out", "a"), policy("Redacted")).await.0, 200);
    assert!(egress.left().iter().all(|external| external.redact));
    let (status, message) = ask(&router, chat("allowexternal-out", "a"), policy("local")).await;
    assert_eq!((status, message.contains("there are LocalOnly, Redacted and AllowExternal")), (400, true), "{message}");
    assert!(egress.left().is_empty());
}

#[tokio::test]
async fn a_router_and_a_token_may_be_stricter() {
    let (worker, egress) = (Worker::start("smol", &["banking"]).await, ScriptedEgress::start().await);
    let mut config = config(limits());
    config.data_policy = DataPolicy::LocalOnly;
    let router = Router::with(with_routes(&worker, Some(&egress)), config).await;
    assert_eq!(ask(&router, chat("allowexternal-out", "a"), json!({})).await.0, 403);
    assert!(egress.left().is_empty());

    let (folder, certificate) = (tempfile::tempdir().expect("a folder"), Certificate::new());
    let tokens = format!("- name: strict\n  token: {OPS}\n  dataPolicy: Redacted\n- name: lax\n  token: {TEAM}\n");
    mount(folder.path(), 0, &certificate, &tokens);
    let mut router = Router::with(with_routes(&worker, Some(&egress)), guarded_config(folder.path())).await;
    router.client = client(&certificate, router.bound.http);
    let url = format!("https://models.example.com:{}/v1/chat/completions", router.bound.http.port());
    for (token, caller, redacted) in [(OPS, "strict", true), (TEAM, "lax", false)] {
        let body = chat("allowexternal-out", "a");
        let answer = router.client.post(&url).bearer_auth(token).json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        let left = egress.left();
        assert_eq!(left.iter().map(|it| (it.caller.as_str(), it.redact)).collect::<Vec<_>>(), [(caller, redacted)]);
    }
}

/// Callers cannot name it, nor see it.
#[tokio::test]
async fn a_model_outside_is_asked_by_routes_alone() {
    let (router, _worker, egress) = start().await;
    let (status, message) = ask(&router, chat("large", "a"), json!({})).await;
    assert_eq!((status, message.contains("only routes ask")), (400, true), "{message}");
    assert!(egress.left().is_empty());
    let (_, models) = router.get("/v1/models").await;
    assert!(!models.to_string().contains("large"), "{models}");
    let (status, message) = ask(&router, chat("larg", "a"), json!({})).await;
    assert_eq!((status, message.contains("large")), (404, false), "{message}");
}

#[tokio::test]
async fn what_is_not_asked_now_is_unavailable() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let soon = Limits { wait_max: Duration::from_millis(50), ..limits() };
    let egress = ScriptedEgress::start().await;
    let router = Router::start(with_routes(&worker, Some(&egress)), soon.clone()).await;
    router.ready().await;
    egress.open_circuit();
    loop {
        // The router hears of it a moment later.
        let (status, message) = ask(&router, chat("allowexternal-out", "a"), json!({})).await;
        if status == 503 {
            assert!(message.contains("large is not asked now"), "{message}");
            break;
        }
    }
    let without = Router::start(with_routes(&worker, None), soon).await;
    let (status, message) = ask(&without, chat("allowexternal-out", "a"), json!({})).await;
    assert_eq!((status, message.contains("no egress runs")), (503, true), "{message}");
}

//! Cascades: answers that are judged before they are given, larger targets, budgets, and what breaks on the way.

use serde_json::{Value, json};
use slm_router::Swarm;

use crate::{
    harness::{Router, chat, events, limits, streamed, swarm},
    worker::Worker,
};

/// A router of the route `ladder`: banking, and travel for what it is not sure of. Each expert has a worker of its own.
async fn router(small: &Worker, large: &Worker, more: &Value) -> Router {
    let mut swarm = serde_json::to_value(swarm(&[small])).expect("JSON");
    swarm["models"].as_array_mut().expect("a list").push(json!({ "name": "big", "workers": [large.url] }));
    swarm["adapters"] = json!([{ "name": "banking", "model": "smol" }, { "name": "travel", "model": "big" }]);
    let target = |name: &str| json!({ "kind": "LoraAdapter", "name": name });
    let mut cascade = json!({ "targets": [target("banking"), target("travel")], "confidence": { "accept": 0.5 } });
    cascade.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let spec = json!({ "cascade": cascade, "fallback": target("banking") });
    swarm["routes"].as_array_mut().expect("a list").push(json!({ "name": "ladder", "spec": spec }));
    let swarm: Swarm = serde_json::from_value(swarm).expect("a swarm");
    let router = Router::start(swarm, limits()).await;
    router.ready().await;
    router
}

async fn workers() -> [Worker; 2] {
    [Worker::start("smol", &["banking"]).await, Worker::start("big", &["travel"]).await]
}

/// Status, and the answer's text or the error's message.
async fn ask(router: &Router, text: &str) -> (u16, String) {
    let response = router.post("/v1/chat/completions", chat("ladder", text)).await;
    let status = response.status().as_u16();
    let answer: Value = response.json().await.expect("JSON");
    let said = answer["choices"][0]["message"]["content"].as_str().or(answer["error"]["message"].as_str());
    (status, said.unwrap_or_else(|| panic!("{answer}")).trim().to_owned())
}

async fn decision(router: &Router, text: &str) -> Value {
    let mut body = chat("ladder", text);
    body["explain"] = true.into();
    let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
    answer["x_slm_decision"].clone()
}

fn ok(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

#[tokio::test]
async fn a_larger_target_answers_what_the_small_one_is_not_sure_of() {
    let [small, large] = workers().await;
    let router = router(&small, &large, &json!({})).await;
    assert_eq!(ask(&router, "hello").await, ok("banking: hello"));
    assert_eq!(ask(&router, "hello !vague").await, ok("travel: hello !vague"));
    // Streamed, nothing of the first answer is in it, nor probabilities that nobody asked for.
    let response = router.post("/v1/chat/completions", streamed("ladder", "hello !vague")).await;
    let events = events(&response.text().await.expect("text"));
    let parsed: Vec<Value> = events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
    let said: String =
        parsed.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect();
    assert_eq!(said.trim(), "travel: hello !vague");
    assert!(parsed.iter().all(|event| event["choices"][0]["logprobs"].is_null()), "{events:?}");

    let kept = decision(&router, "hello").await;
    assert_eq!(kept["reason"], "no rule matched: fallback; confidence 0.78, accepted from 0.50");
    let outcomes = |decision: &Value| -> Vec<Value> {
        let candidates = decision["candidates"].as_array().expect("a list");
        candidates.iter().map(|it| json!([it["expert"]["name"], it["rule"], it["outcome"]])).collect()
    };
    assert_eq!(outcomes(&kept), [json!(["banking", "fallback", "chosen"]), json!(["travel", "cascade", "not_asked"])]);
    let escalated = decision(&router, "hello !vague").await;
    assert_eq!(escalated["reason"], "no rule matched: fallback; confidence 0.05, accepted from 0.50: travel is asked");
    assert_eq!((&escalated["chosen"]["name"], &escalated["worker"]), (&json!("travel"), &json!(large.url)));
    assert_eq!(
        outcomes(&escalated),
        [json!(["banking", "fallback", "not_confident"]), json!(["travel", "cascade", "chosen"])]
    );
    let metrics = router.raw("/metrics").await.text().await.expect("text");
    assert!(
        metrics.contains("slm_router_cascade_answers_total{route=\"ladder\",outcome=\"escalated\"} 3"),
        "{metrics}"
    );
}

#[tokio::test]
async fn callers_who_ask_for_probabilities_get_them() {
    let [small, large] = workers().await;
    let router = router(&small, &large, &json!({ "confidence": { "measure": "Least", "accept": 0.5 } })).await;
    for (text, logprob) in [("hello", -0.25), ("hello !vague", -0.25)] {
        let mut body = chat("ladder", text);
        body["logprobs"] = true.into();
        let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
        assert_eq!(answer["choices"][0]["logprobs"]["content"][0]["logprob"], logprob, "{answer}");
    }
}

#[tokio::test]
async fn a_budget_bounds_how_often() {
    let [small, large] = workers().await;
    let lenient = router(&small, &large, &json!({ "budget": { "share": 0.5 } })).await;
    let mut escalated = 0;
    for _ in 0..10 {
        escalated += usize::from(ask(&lenient, "hello !vague").await == ok("travel: hello !vague"));
    }
    assert_eq!(escalated, 5);
    let strict = router(&small, &large, &json!({ "budget": { "perMinute": 1, "spent": "Reject" } })).await;
    assert_eq!(ask(&strict, "hello !vague").await, ok("travel: hello !vague"));
    let (status, message) = ask(&strict, "hello !vague").await;
    assert_eq!((status, message.contains("its budget of escalations is spent")), (429, true), "{message}");
    assert_eq!(ask(&strict, "hello").await, ok("banking: hello"));
}

#[tokio::test]
async fn what_breaks_is_answered_by_the_other() {
    let [small, large] = workers().await;
    let router = router(&small, &large, &json!({})).await;
    // The small one breaks in the middle, before anything of its answer has left.
    assert_eq!(ask(&router, "hello !break").await.0, 503, "the large one breaks, too");
    assert_eq!(ask(&router, "hello !vague").await, ok("travel: hello !vague"));
    // The large one is gone: the small one's answer is what there is.
    large.change(|state| state.adapters.clear());
    while ask(&router, "hello !vague").await != ok("banking: hello !vague") {}
    let reason = decision(&router, "hello !vague").await["reason"].as_str().map(str::to_owned).expect("a reason");
    assert!(reason.starts_with("no rule matched: fallback; confidence 0.05, but travel did not answer: "), "{reason}");
    // An answer that is longer than what is read goes out as it is.
    let (status, said) = ask(&router, "!much !vague").await;
    assert!(status == 200 && said.len() > 1 << 20, "{status} {}", said.len());
}

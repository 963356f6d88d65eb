//! Routes that find their expert by examples: selection, out of scope, and what a failing encoder means.

use std::sync::{Arc, atomic::Ordering};

use serde_json::{Value, json};
use slm_router::Swarm;

use crate::{
    harness::{Router, chat, events, limits, streamed, swarm},
    worker::Worker,
};

/// Workers of the experts and of the encoder.
struct Workers {
    experts: Worker,
    encoder: Worker,
}

impl Workers {
    async fn start() -> Self {
        Self {
            experts: Worker::start("smol", &["banking", "travel"]).await,
            encoder: Worker::start("encoder", &[]).await,
        }
    }

    /// The route `finder`, which has these fields, too.
    fn swarm(&self, more: &Value) -> Swarm {
        let mut swarm = serde_json::to_value(swarm(&[&self.experts])).expect("JSON");
        let encoder = json!({ "name": "encoder", "workers": [self.encoder.url] });
        swarm["models"].as_array_mut().expect("a list").push(encoder);
        let examples = [
            json!(["block my lost card", "my card was lost", "is my card blocked"]),
            json!(["book a flight to oslo", "book a flight to rome", "find a flight to rome"]),
        ];
        for (adapter, examples) in swarm["adapters"].as_array_mut().expect("a list").iter_mut().zip(examples) {
            adapter["expert"] = json!({ "examples": examples });
        }
        let mut spec = json!({
            "rules": [{ "when": "text.startsWith('rule')", "to": { "kind": "LoraAdapter", "name": "travel" } }],
            "similarity": {
                "encoder": { "kind": "SlmModel", "name": "encoder" },
                "targets": [{ "kind": "LoraAdapter", "name": "banking" }, { "kind": "LoraAdapter", "name": "travel" }],
                "thresholds": { "accept": 0.5, "outOfScope": 0.2 },
            },
            "fallback": { "kind": "SlmModel", "name": "smol" },
        });
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        swarm["routes"].as_array_mut().expect("a list").push(json!({ "name": "finder", "spec": spec }));
        serde_json::from_value(swarm).expect("a swarm")
    }

    async fn router(&self, more: &Value) -> Router {
        let router = Router::start(self.swarm(more), limits()).await;
        router.ready().await;
        router
    }
}

/// Status, and the answer's text or the error's message.
async fn ask(router: &Router, text: &str) -> (u16, String) {
    let response = router.post("/v1/chat/completions", chat("finder", text)).await;
    let status = response.status().as_u16();
    let answer: Value = response.json().await.expect("JSON");
    let said = answer["choices"][0]["message"]["content"].as_str().or(answer["error"]["message"].as_str());
    (status, said.unwrap_or_else(|| panic!("{answer}")).to_owned())
}

async fn decision(router: &Router, text: &str) -> Value {
    let mut body = chat("finder", text);
    body["explain"] = true.into();
    let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
    answer["x_slm_decision"].clone()
}

#[tokio::test]
async fn the_most_similar_target_answers_and_the_decision_says_why() {
    let workers = Workers::start().await;
    let router = workers.router(&json!({})).await;
    assert_eq!(ask(&router, "my card is lost").await, (200, "banking: my card is lost ".to_owned()));
    assert_eq!(ask(&router, "a flight to rome").await, (200, "travel: a flight to rome ".to_owned()));
    // Nothing is said of what is out of scope: the fallback.
    assert_eq!(ask(&router, "bake bread").await, (200, "smol: bake bread ".to_owned()));

    let found = decision(&router, "my card is lost").await;
    assert_eq!((&found["chosen"]["name"], &found["similarity"]["scope"]), (&json!("banking"), &json!("in")));
    assert!(found["reason"].as_str().is_some_and(|why| why.starts_with("most similar: 0.")), "{found}");
    let outcomes: Vec<_> = found["candidates"].as_array().expect("a list").iter().map(|it| &it["outcome"]).collect();
    assert_eq!(outcomes, ["no_match", "chosen", "less_similar", "not_reached"]);
    let [best, second] = [1, 2].map(|place| found["candidates"][place]["score"].as_f64().expect("a score"));
    assert!(best > 0.5 && second < best && found["similarity"]["best"] == best, "{found}");

    let unsure = decision(&router, "my dog is black").await;
    assert_eq!((&unsure["chosen"]["name"], &unsure["similarity"]["scope"]), (&json!("banking"), &json!("unsure")));
    let out = decision(&router, "bake bread").await;
    assert_eq!((&out["chosen"]["name"], &out["similarity"]["scope"]), (&json!("smol"), &json!("out")));
    assert_eq!(out["candidates"][1]["outcome"], "out_of_scope");
}

#[tokio::test]
async fn a_rule_is_cheaper_and_a_text_is_encoded_once() {
    let workers = Workers::start().await;
    let router = workers.router(&json!({})).await;
    assert_eq!(ask(&router, "rule my card").await.1, "travel: rule my card ");
    for _ in 0..3 {
        assert_eq!(ask(&router, "my card").await.1, "banking: my card ");
    }
    let embedded = workers.encoder.script.embedded.lock().expect("no panic").clone();
    let times = |text: &str| embedded.iter().filter(|(_, embedded)| embedded == text).count();
    assert_eq!((times("rule my card"), times("my card"), times("book a flight to oslo")), (0, 1, 1), "{embedded:?}");
    assert!(embedded.contains(&("(router)".to_owned(), "book a flight to oslo".to_owned())));
}

#[tokio::test]
async fn out_of_scope_is_a_target_a_message_or_an_error() {
    let workers = Workers::start().await;
    let to = json!({ "outOfScope": { "to": { "kind": "LoraAdapter", "name": "travel" } } });
    assert_eq!(ask(&workers.router(&to).await, "bake bread").await.1, "travel: bake bread ");

    let router = workers.router(&json!({ "outOfScope": { "reject": "Only cards and flights." } })).await;
    let response = router.post("/v1/chat/completions", chat("finder", "bake bread")).await;
    assert_eq!(response.status(), 400);
    let refused: Value = response.json().await.expect("JSON");
    assert_eq!(
        (&refused["error"]["message"], &refused["error"]["code"]),
        (&json!("Only cards and flights."), &json!("out_of_scope"))
    );

    let router = workers.router(&json!({ "outOfScope": { "message": "I know cards and flights." } })).await;
    assert_eq!(ask(&router, "bake bread").await, (200, "I know cards and flights.".to_owned()));
    let response = router.post("/v1/chat/completions", streamed("finder", "bake bread")).await;
    let events = events(&response.text().await.expect("text"));
    let said: String = events
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!((said.as_str(), events.last().map(String::as_str)), ("I know cards and flights.", Some("[DONE]")));
    let message =
        json!({ "model": "finder", "max_tokens": 9, "messages": [{ "role": "user", "content": "bake bread" }] });
    let answer: Value = router.post("/v1/messages", message).await.json().await.expect("JSON");
    assert_eq!(
        (&answer["content"][0]["text"], &answer["stop_reason"]),
        (&json!("I know cards and flights."), &json!("end_turn"))
    );
    let answer: Value = router
        .post("/v1/responses", json!({ "model": "finder", "input": "bake bread" }))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(
        (&answer["output"][0]["content"][0]["text"], &answer["status"]),
        (&json!("I know cards and flights."), &json!("completed"))
    );
    let answer: Value = router
        .post("/api/generate", json!({ "model": "finder", "prompt": "bake bread", "stream": false }))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(answer["response"], "I know cards and flights.");
    // No expert was asked.
    assert!(
        workers.experts.script.requests.lock().expect("no panic").iter().all(|(request, _)| request.model == "travel")
    );
    let found = decision(&router, "bake bread").await;
    assert_eq!((&found["chosen"], &found["worker"]), (&Value::Null, &json!("")), "{found}");
    // Words are no vector.
    let vectors = router.post("/v1/embeddings", json!({ "model": "finder", "input": "bake bread" })).await;
    assert_eq!(vectors.status(), 400);
}

#[tokio::test]
async fn without_its_encoder_a_route_falls_back_or_rejects() {
    let workers = Workers::start().await;
    let lenient = workers.router(&json!({})).await;
    let strict = workers.router(&json!({ "onError": "Reject" })).await;
    // The encoder breaks on one request, answers others, and hangs.
    assert_eq!(ask(&lenient, "my card !broken").await, (200, "smol: my card !broken ".to_owned()));
    let reason = decision(&lenient, "my card !broken").await["reason"].clone();
    assert_eq!(reason, "the encoder `encoder` did not answer: told to break: fallback");
    let (status, message) = ask(&strict, "my card !broken").await;
    assert_eq!(status, 503, "{message}");
    assert_eq!(
        message,
        "the route `finder` could not choose an expert: the encoder `encoder` did not answer: told to break"
    );
    assert_eq!(ask(&strict, "my card").await.0, 200);
    workers.encoder.script.hangs.store(true, Ordering::Relaxed);
    assert_eq!(ask(&lenient, "a card of mine").await, (200, "smol: a card of mine ".to_owned()));
    let (status, message) = ask(&strict, "a card of mine").await;
    assert!(
        status == 503 && message.ends_with("the encoder `encoder` did not answer within 2 s"),
        "{status} {message}"
    );
    // A vector that is known needs no encoder.
    assert_eq!(ask(&strict, "my card").await.0, 200);
}

#[tokio::test]
async fn a_new_version_of_the_encoder_or_of_an_expert_is_compared_anew() {
    let workers = Workers::start().await;
    let router = workers.router(&json!({})).await;
    assert_eq!(ask(&router, "my card").await.1, "banking: my card ");
    workers.encoder.change(|state| state.model_digest = "sha256:other".to_owned());
    let compared = || {
        workers.encoder.script.embedded.lock().expect("no panic").iter().filter(|(_, text)| text == "my card").count()
    };
    while compared() < 2 {
        assert_eq!(ask(&router, "my card").await.1, "banking: my card ");
    }
    // Other examples: bread is banking's now.
    let mut swarm = serde_json::to_value(workers.swarm(&json!({}))).expect("JSON");
    swarm["generation"] = 2.into();
    swarm["adapters"][0]["expert"]["examples"] = json!(["bake bread", "bake some bread"]);
    router.swarm.send_replace(Arc::new(serde_json::from_value(swarm).expect("a swarm")));
    while ask(&router, "bake bread").await.1 != "banking: bake bread " {}
}

//! Routes whose classifier finds the expert: labels, scope, similarity after it, and what a failing classifier means.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use slm_router::Swarm;

use crate::{
    harness::{Router, chat, limits, swarm},
    worker::Worker,
};

/// Workers of the experts and of the encoder, which has the head.
struct Workers {
    experts: Worker,
    encoder: Worker,
}

const EXAMPLES: [&str; 2] = ["block my card !unsure", "is my card blocked !unsure"];

impl Workers {
    async fn start() -> Self {
        Self {
            experts: Worker::start("smol", &["banking", "travel"]).await,
            encoder: Worker::start("encoder", &["head"]).await,
        }
    }

    /// A router of the route `finder`, which has these fields, too; those of `classifier` are the classifier's.
    async fn router(&self, classifier: &Value, more: &Value) -> Router {
        let mut swarm = serde_json::to_value(swarm(&[&self.experts])).expect("JSON");
        let encoder = json!({ "name": "encoder", "workers": [self.encoder.url] });
        swarm["models"].as_array_mut().expect("a list").push(encoder);
        let adapters = swarm["adapters"].as_array_mut().expect("a list");
        adapters[0]["expert"] = json!({ "examples": EXAMPLES });
        adapters.push(json!({ "name": "head", "model": "encoder" }));
        let target = |name: &str| json!({ "kind": "LoraAdapter", "name": name });
        let mut spec = json!({
            "rules": [{ "when": "text.startsWith('rule')", "to": target("travel") }],
            "classifier": { "model": target("head"), "targets": [target("banking"), target("travel")] },
            "outOfScope": { "message": "I know cards and flights." },
            "fallback": { "kind": "SlmModel", "name": "smol" },
        });
        let with = |spec: &mut Value, more: &Value| {
            spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        };
        with(&mut spec["classifier"], classifier);
        with(&mut spec, more);
        swarm["routes"].as_array_mut().expect("a list").push(json!({ "name": "finder", "spec": spec }));
        let swarm: Swarm = serde_json::from_value(swarm).expect("a swarm");
        let router = Router::start(swarm, limits()).await;
        router.ready().await;
        router
    }

    /// How often the encoder's worker has read a text.
    fn read(&self, text: &str) -> usize {
        self.encoder.script.embedded.lock().expect("no panic").iter().filter(|(_, read)| read == text).count()
    }
}

async fn said(router: &Router, text: &str) -> String {
    let answer: Value = router.post("/v1/chat/completions", chat("finder", text)).await.json().await.expect("JSON");
    let said = answer["choices"][0]["message"]["content"].as_str().or(answer["error"]["message"].as_str());
    said.unwrap_or_else(|| panic!("{answer}")).trim().to_owned()
}

async fn decision(router: &Router, text: &str) -> Value {
    let mut body = chat("finder", text);
    body["explain"] = true.into();
    let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
    answer["x_slm_decision"].clone()
}

#[tokio::test]
async fn the_target_of_the_label_answers_and_the_decision_says_why() {
    let workers = Workers::start().await;
    let router = workers.router(&json!({}), &json!({})).await;
    assert_eq!(said(&router, "my balance").await, "banking: my balance");
    assert_eq!(said(&router, "a flight").await, "travel: a flight");
    let found = decision(&router, "a flight").await;
    assert_eq!(found["reason"], "label flight, probability of travel 0.70, typicality 0.500");
    let expected = json!({
        "scope": "in", "label": "flight", "probability": 0.7f32, "typicality": 0.5, "accept": 0.04, "out_of_scope": 0.02,
    });
    assert_eq!(found["classified"], expected);
    let outcomes: Vec<_> = found["candidates"].as_array().expect("a list").iter().map(|it| &it["outcome"]).collect();
    assert_eq!(outcomes, ["no_match", "chosen", "less_probable", "not_reached"]);

    let unsure = decision(&router, "a flight !unsure").await;
    assert_eq!((&unsure["chosen"]["name"], &unsure["classified"]["scope"]), (&json!("travel"), &json!("unsure")));
    assert_eq!(
        unsure["reason"],
        "label flight, probability of travel 0.70; unsure: typicality 0.030, accepted above 0.040"
    );
    let out = decision(&router, "a flight !rare").await;
    assert_eq!(
        out["reason"],
        "out of scope: typicality 0.010, up to 0.020; the most probable label is flight, of travel"
    );
    assert_eq!((&out["chosen"], &out["candidates"][1]["outcome"]), (&Value::Null, &json!("out_of_scope")));
    assert_eq!(said(&router, "a flight !rare").await, "I know cards and flights.");
    // A label of an expert that the route does not have.
    let stray = decision(&router, "a poem").await;
    assert_eq!(stray["reason"], "out of scope: its label, poem, is of arts, which is no target of the route");
    assert_eq!(said(&router, "a poem").await, "I know cards and flights.");
}

#[tokio::test]
async fn labels_and_shares_of_the_manifest_count() {
    let workers = Workers::start().await;
    let router = workers.router(&json!({ "labels": { "poem": "travel" }, "falseRejections": 0.3 }), &json!({})).await;
    assert_eq!(decision(&router, "a poem").await["chosen"]["name"], "travel");
    let unsure = decision(&router, "my balance").await;
    assert_eq!((&unsure["classified"]["scope"], &unsure["classified"]["accept"]), (&json!("unsure"), &json!(0.6)));
    // Without false rejections everything is in scope.
    let router = workers.router(&json!({ "falseRejections": 0.0 }), &json!({})).await;
    assert_eq!(said(&router, "a flight !rare").await, "travel: a flight !rare");
}

#[tokio::test]
async fn a_rule_is_cheaper_and_a_text_is_read_once_for_each_version() {
    let workers = Workers::start().await;
    let router = workers.router(&json!({}), &json!({})).await;
    assert_eq!(said(&router, "rule my balance").await, "travel: rule my balance");
    for _ in 0..3 {
        assert_eq!(said(&router, "my balance").await, "banking: my balance");
    }
    assert_eq!((workers.read("rule my balance"), workers.read("my balance")), (0, 1));
    workers.encoder.change(|state| state.adapters[0].digest = "sha256:other".to_owned());
    while workers.read("my balance") < 2 {
        assert_eq!(said(&router, "my balance").await, "banking: my balance");
    }
}

#[tokio::test]
async fn what_the_classifier_does_not_accept_is_compared_with_examples() {
    let workers = Workers::start().await;
    let similarity = json!({ "similarity": {
        "encoder": { "kind": "SlmModel", "name": "encoder" },
        "targets": [{ "kind": "LoraAdapter", "name": "banking" }],
        "thresholds": { "accept": 0.6, "outOfScope": 0.2 },
    } });
    let router = workers.router(&json!({}), &similarity).await;
    let found = decision(&router, "my balance").await;
    assert_eq!((&found["chosen"]["name"], &found["similarity"]), (&json!("banking"), &Value::Null));
    // Its label is travel's; its words are those of banking's examples.
    let text = "block my card flight !unsure";
    let found = decision(&router, text).await;
    assert_eq!((&found["chosen"]["name"], &found["similarity"]["scope"]), (&json!("banking"), &json!("in")), "{found}");
    let outcomes: Vec<_> = found["candidates"].as_array().expect("a list").iter().map(|it| &it["outcome"]).collect();
    assert_eq!(outcomes, ["no_match", "unsure", "less_probable", "chosen", "not_reached"]);
    assert_eq!(said(&router, "sing a poem").await, "I know cards and flights.");
    // A classifier that fails leaves it to the examples, too.
    assert_eq!(said(&router, "block my card !broken").await, "smol: block my card !broken");
}

#[tokio::test]
async fn without_its_classifier_a_route_falls_back_or_rejects() {
    let workers = Workers::start().await;
    let lenient = workers.router(&json!({}), &json!({})).await;
    let strict = workers.router(&json!({}), &json!({ "onError": "Reject" })).await;
    for (text, why) in [
        ("my balance !broken", "the classifier `head` did not answer: told to break"),
        ("my balance !garbled", "the classifier `head` gave no usable answer"),
    ] {
        assert_eq!(decision(&lenient, text).await["reason"], format!("{why}: fallback"));
        assert_eq!(said(&strict, text).await, format!("the route `finder` could not choose an expert: {why}"));
    }
    assert_eq!(said(&strict, "my balance").await, "banking: my balance");
    workers.encoder.script.hangs.store(true, Ordering::Relaxed);
    assert_eq!(said(&lenient, "a balance of mine").await, "smol: a balance of mine");
    assert!(said(&strict, "a balance of mine").await.ends_with("the classifier `head` did not answer within 2 s"));
    // What is known needs no classifier.
    assert_eq!(said(&strict, "my balance").await, "banking: my balance");
    workers.encoder.change(|state| state.adapters.clear());
    while !said(&strict, "my balance").await.contains("the classifier `head` is not loaded on any worker") {}
    let response = strict.post("/v1/chat/completions", chat("finder", "my balance")).await;
    assert_eq!(response.status(), 503);
}

//! What goes wrong at an endpoint, and what callers get.

use serde_json::{Value, json};
use tonic::Code;

use crate::{
    endpoint::{Endpoint, Script, delta, said},
    harness::{Egress, config, large, question},
};

fn status(code: u16, body: &str) -> Script {
    Script::Status(code, vec![("content-type", "application/json")], body.to_owned())
}

/// Code and message that the caller hears, and how often the endpoint was asked.
async fn drill(script: Vec<Script>, more: Value) -> (Code, String, usize) {
    let endpoint = Endpoint::start(script).await;
    let egress = Egress::of(&endpoint.url, more).await;
    let status = egress.ask(question("hello")).await.expect_err("a refusal");
    (status.code(), status.message().to_owned(), endpoint.asked().len())
}

#[tokio::test]
async fn each_fault_has_its_answer() {
    let cut = vec![delta(json!({ "content": "half" }))];
    let cases: Vec<(Script, Code, &str, usize)> = vec![
        (status(400, r#"{"error":{"message":"no such role"}}"#), Code::InvalidArgument, "answers 400: no such role", 1),
        (status(401, r#"{"error":{"message":"key sk-1 is wrong"}}"#), Code::Unavailable, "refuses its credentials", 1),
        (status(404, r#"{"detail":"no model"}"#), Code::Unavailable, "answers 404", 1),
        (status(422, "<html>\u{1}oops</html>"), Code::InvalidArgument, "answers 422: <html> oops</html>", 1),
        (status(500, "<html>\u{1}oops</html>"), Code::Unavailable, "answers 500", 3),
        (
            Script::Status(429, vec![("retry-after", "60")], r#"{"error":{"message":"slow down"}}"#.to_owned()),
            Code::ResourceExhausted,
            "answers 429",
            1,
        ),
        (
            Script::Status(302, vec![("location", "http://elsewhere/")], String::new()),
            Code::Unavailable,
            "answers 302",
            1,
        ),
        (Script::Stream(cut, 64), Code::Unavailable, "ended the answer before it was finished", 1),
        (Script::Stream(vec!["rubbish".to_owned()], 64), Code::Unavailable, "cannot be read", 1),
        (
            Script::Stream(vec![r#"{"error":{"message":"out of memory"}}"#.to_owned()], 64),
            Code::Unavailable,
            "the endpoint reports: out of memory",
            1,
        ),
    ];
    for (script, code, message, asked) in cases {
        let (found, said, times) = drill(vec![script], json!({})).await;
        assert_eq!((found, times, said.contains(message)), (code, asked, true), "{message}: {said}");
        assert!(!said.contains("sk-1"), "{said}");
    }
}

#[tokio::test]
async fn a_silent_endpoint_is_left() {
    let half = vec![delta(json!({ "content": "half" }))];
    for script in [Script::Hang(Vec::new()), Script::Hang(half)] {
        let (code, message, _) = drill(vec![script], json!({ "timeoutSeconds": 1 })).await;
        assert_eq!((code, message.contains("has sent nothing for 1 s")), (Code::Unavailable, true), "{message}");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let soon = Script::Status(429, vec![("retry-after", "0")], String::new());
    let endpoint = Endpoint::start([status(503, "busy"), soon, Script::Stream(said(&["at last"]), 64)]).await;
    let egress = Egress::of(&endpoint.url, json!({})).await;
    assert_eq!(egress.ask(question("hello")).await.expect("an answer").text, "at last");
    assert_eq!(endpoint.asked().len(), 3);
    assert!(egress.metrics().await.contains("slm_egress_retries_total{model=\"large\"} 2"));
}

#[tokio::test]
async fn a_model_that_fails_is_not_asked_for_a_while() {
    let endpoint = Endpoint::start([status(401, "")]).await;
    let egress = Egress::of(&endpoint.url, json!({})).await;
    for _ in 0..5 {
        egress.ask(question("hello")).await.expect_err("refused");
    }
    egress.until(<[String]>::is_empty).await;
    let status = egress.ask(question("hello")).await.expect_err("its circuit is open");
    assert_eq!(
        (status.code(), status.message().contains("has failed too often")),
        (Code::Unavailable, true),
        "{status:?}"
    );
    assert_eq!(endpoint.asked().len(), 5);
    assert!(egress.metrics().await.contains("slm_egress_circuit_open{model=\"large\"} 1"));
}

#[tokio::test]
async fn places_are_bounded_and_given_back() {
    let half = vec![delta(json!({ "content": "half" }))];
    let endpoint = Endpoint::start([Script::Hang(half), Script::Stream(said(&["whole"]), 64)]).await;
    let egress = Egress::of(&endpoint.url, json!({ "concurrency": 1 })).await;
    let mut first = egress.client.clone().generate(question("a")).await.expect("an answer").into_inner();
    first.message().await.expect("started").expect("started");
    // Four may wait for one place.
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let mut client = egress.client.clone();
            tokio::spawn(async move { client.generate(question("b")).await.map(|_| ()) })
        })
        .collect();
    let mut states = egress.states().await;
    while states.message().await.expect("a state").expect("a state").requests_waiting < 4 {}
    let status = egress.ask(question("c")).await.expect_err("too many");
    assert_eq!(
        (status.code(), status.message().contains("4 wait already")),
        (Code::ResourceExhausted, true),
        "{status:?}"
    );
    // The caller leaves, and the next has its place.
    drop(first);
    for waiting in waiting {
        waiting.await.expect("no panic").expect("an answer");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_says_why() {
    let endpoint = Endpoint::start([Script::Stream(said(&["ok"]), 64)]).await;
    let cases = [
        (json!({ "secretRef": { "name": "key" } }), "Secret key: there are no Secrets here"),
        (json!({ "caBundle": "no PEM" }), "spec.caBundle"),
    ];
    for (more, why) in cases {
        let egress = Egress::start(large(&endpoint.url, &more), config()).await;
        let status = loop {
            let status = egress.ask(question("hello")).await.expect_err("not asked");
            // Its first snapshot comes a moment later.
            if status.code() != Code::NotFound {
                break status;
            }
        };
        assert_eq!((status.code(), status.message().contains(why)), (Code::Unavailable, true), "{status:?}");
    }
    assert!(endpoint.asked().is_empty());
}

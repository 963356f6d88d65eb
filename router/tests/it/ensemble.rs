//! Ensembles: several experts asked at once, votes, judges, deadlines, and what callers get when experts or judges fail.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use slm_proto::v1::{
    GenerateRequest, Message, Messages, generate_request::Input, generation_client::GenerationClient,
    sampling::Constraint,
};
use slm_router::Swarm;
use tonic::Request;

use crate::{
    harness::{Router, chat, events, limits, streamed, swarm},
    worker::Worker,
};

const EXPERTS: [&str; 3] = ["banking", "travel", "kitchen"];

fn expert(name: &str) -> Value {
    json!({ "kind": "LoraAdapter", "name": name })
}

fn smol() -> Value {
    json!({ "kind": "SlmModel", "name": "smol" })
}

/// An ensemble of the three experts.
fn ensemble(combine: &str, more: &Value) -> Value {
    let mut ensemble = json!({ "experts": EXPERTS.map(expert), "combine": combine });
    if combine == "Judge" {
        ensemble["judge"] = smol();
    }
    ensemble.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    ensemble
}

/// A router of the route `team` with this ensemble.
async fn router(workers: &[&Worker], ensemble: &Value, more: &Value) -> Router {
    let mut swarm = serde_json::to_value(swarm(workers)).expect("JSON");
    swarm["adapters"].as_array_mut().expect("a list").push(json!({ "name": "kitchen", "model": "smol" }));
    let mut spec = json!({ "ensemble": ensemble, "fallback": smol() });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    swarm["routes"].as_array_mut().expect("a list").push(json!({ "name": "team", "spec": spec }));
    let swarm: Swarm = serde_json::from_value(swarm).expect("a swarm");
    let router = Router::start(swarm, limits()).await;
    router.ready().await;
    router
}

async fn worker() -> Worker {
    Worker::start("smol", &EXPERTS).await
}

/// Status, and the answer's text or the error's message.
async fn ask(router: &Router, text: &str) -> (u16, String) {
    post(router, chat("team", text)).await
}

async fn post(router: &Router, body: Value) -> (u16, String) {
    let response = router.post("/v1/chat/completions", body).await;
    let status = response.status().as_u16();
    let answer: Value = response.json().await.expect("JSON");
    let said = answer["choices"][0]["message"]["content"].as_str().or(answer["error"]["message"].as_str());
    (status, said.unwrap_or_else(|| panic!("{answer}")).trim().to_owned())
}

fn ok(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

/// The reason, and what came of each candidate of the ensemble.
async fn explained(router: &Router, text: &str) -> (String, Vec<Value>) {
    let mut body = chat("team", text);
    body["explain"] = true.into();
    let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
    let decision = &answer["x_slm_decision"];
    let candidates = decision["candidates"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let candidates = candidates.iter().filter(|it| it["rule"] == "ensemble" || it["rule"] == "fallback");
    let candidates = candidates.map(|it| json!([it["expert"]["name"], it["outcome"], it["why_not"]])).collect();
    (decision["reason"].as_str().expect("a reason").to_owned(), candidates)
}

async fn counts(router: &Router, metric: &str) -> bool {
    let metrics = router.raw("/metrics").await.text().await.expect("text");
    metrics.lines().any(|line| line == metric)
}

#[tokio::test]
async fn the_majority_answers() {
    let worker = worker().await;
    let router = router(&[&worker], &ensemble("Vote", &json!({})), &json!({})).await;
    assert_eq!(ask(&router, "banking=No~-1 travel=**yes** kitchen=Yes.~-1").await, ok("**yes**"));
    // Nobody agrees: the most confident one answers, and of equals the first listed.
    assert_eq!(ask(&router, "banking=a travel=b~-0.1 kitchen=c").await, ok("b"));
    assert_eq!(ask(&router, "banking=a travel=b kitchen=c").await, ok("a"));
    assert!(counts(&router, "slm_router_ensembles_total{route=\"team\",outcome=\"whole\"} 3").await);
}

#[tokio::test]
async fn a_decided_vote_waits_for_nobody() {
    let worker = worker().await;
    let router = router(&[&worker], &ensemble("Vote", &json!({})), &json!({})).await;
    let (reason, candidates) = explained(&router, "banking=yes travel=!never kitchen=yes").await;
    assert_eq!(reason, "no rule matched: ensemble of 3; 2 of 3 answered, 2 of them the same");
    assert_eq!(
        candidates,
        [
            json!(["banking", "chosen", ""]),
            json!(["travel", "cut_short", "the others had decided"]),
            json!(["kitchen", "agreed", "another one said the same"]),
            json!(["smol", "not_reached", "not needed"]),
        ]
    );
    // Its sequence is gone with it.
    worker.script.cancelled.subscribe().wait_for(|cancelled| *cancelled == 1).await.expect("a worker");
}

#[tokio::test]
async fn the_most_confident_answers_and_all_are_paid_for() {
    let worker = worker().await;
    let router = router(&[&worker], &ensemble("Best", &json!({})), &json!({})).await;
    let text = "banking=a~-2 travel=b~-0.1 kitchen=c~-1";
    let response = router.post("/v1/chat/completions", chat("team", text)).await;
    assert_eq!(response.headers()["x-slm-expert"], "travel");
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"].as_str().map(str::trim), Some("b"));
    assert_eq!((&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]), (&json!(9), &json!(3)));
    assert!(answer["choices"][0]["logprobs"].is_null() && answer["x_slm_decision"].is_null(), "{answer}");

    let (reason, candidates) = explained(&router, text).await;
    assert_eq!(reason, "no rule matched: ensemble of 3; 3 of 3 answered, the most confident one with 0.90");
    let outcomes: Vec<&Value> = candidates.iter().map(|it| &it[1]).collect();
    assert_eq!(outcomes, ["differed", "chosen", "differed", "not_reached"]);

    // Streamed, it comes when it is chosen, and is the only one.
    let response = router.post("/v1/chat/completions", streamed("team", text)).await;
    let events = events(&response.text().await.expect("text"));
    let parsed: Vec<Value> = events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
    let said: String =
        parsed.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect();
    assert_eq!(said.trim(), "b");
    // Probabilities that were asked for are those of the answer.
    let mut body = chat("team", text);
    body["logprobs"] = true.into();
    let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
    let logprob = answer["choices"][0]["logprobs"]["content"][0]["logprob"].as_f64().expect("a number");
    assert!((logprob + 0.1).abs() < 1e-6, "{answer}");
}

#[tokio::test]
async fn an_expert_that_fails_is_done_without() {
    let worker = worker().await;
    let router = router(&[&worker], &ensemble("Best", &json!({})), &json!({})).await;
    for failure in ["!break", "!full", "!much"] {
        assert_eq!(ask(&router, &format!("banking=a~-2 travel={failure} kitchen=c~-1")).await, ok("c"), "{failure}");
    }
    assert!(counts(&router, "slm_router_ensembles_total{route=\"team\",outcome=\"partial\"} 3").await);
    let (reason, candidates) = explained(&router, "banking=a~-2 travel=!break kitchen=c~-1").await;
    assert!(reason.ends_with("; 2 of 3 answered, the most confident one with 0.37"), "{reason}");
    assert_eq!(candidates[1][1], "failed");
    // One that is not loaded is not waited for.
    worker.change(|state| state.adapters.retain(|adapter| adapter.name != "travel"));
    while explained(&router, "banking=a~-2 kitchen=c~-1").await.1[1][1] != "not_resident" {}
    assert_eq!(ask(&router, "banking=a~-2 kitchen=c~-1").await, ok("c"));
}

#[tokio::test]
async fn what_has_come_by_the_deadline_is_combined() {
    let worker = worker().await;
    let soon = json!({ "timeoutMilliseconds": 300, "minimumAnswers": 2 });
    let router = router(&[&worker], &ensemble("Best", &soon), &json!({})).await;
    let (reason, candidates) = explained(&router, "banking=a~-2 travel=!never kitchen=c~-1").await;
    assert!(reason.ends_with("; 2 of 3 answered, the most confident one with 0.37"), "{reason}");
    assert_eq!(candidates[1], json!(["travel", "cut_short", "the time had passed"]));
    worker.script.cancelled.subscribe().wait_for(|cancelled| *cancelled == 1).await.expect("a worker");
    // Too few in time is an error, whatever the fallback: the time is for the caller's sake.
    let (status, message) = ask(&router, "banking=a travel=!never kitchen=!never").await;
    assert_eq!(
        (status, message.as_str()),
        (
            504,
            "of the experts of the route `team` 1 answered in time, and 2 have to: travel: no answer yet; kitchen: no \
             answer yet; try again later"
        )
    );
    worker.script.cancelled.subscribe().wait_for(|cancelled| *cancelled == 3).await.expect("a worker");
}

#[tokio::test]
async fn of_a_callers_deadline_there_is_time_left_to_answer() {
    let worker = worker().await;
    let router = router(&[&worker], &ensemble("Best", &json!({})), &json!({})).await;
    let content = "banking=a~-2 travel=!never kitchen=c~-1".to_owned();
    let message = Message { role: "user".to_owned(), content, ..Message::default() };
    let mut request = Request::new(GenerateRequest {
        model: "team".to_owned(),
        input: Some(Input::Messages(Messages { messages: vec![message] })),
        ..GenerateRequest::default()
    });
    request.set_timeout(Duration::from_secs(2));
    let answer = GenerationClient::new(router.grpc().await).complete(request).await.expect("an answer").into_inner();
    assert_eq!(answer.text.trim(), "c");
}

#[tokio::test]
async fn with_too_few_answers_the_fallback_answers_or_nobody() {
    let worker = worker().await;
    let all = json!({ "minimumAnswers": 3 });
    let lenient = router(&[&worker], &ensemble("Vote", &all), &json!({})).await;
    let text = "banking=a travel=!break kitchen=c smol=d";
    assert_eq!(ask(&lenient, text).await, ok("d"));
    let (reason, candidates) = explained(&lenient, text).await;
    assert!(reason.starts_with("no rule matched: ensemble of 3, but of the experts of the route `team` 2 answered"));
    assert!(reason.ends_with(": fallback"), "{reason}");
    let outcomes: Vec<&Value> = candidates.iter().map(|it| &it[1]).collect();
    assert_eq!(outcomes, ["differed", "failed", "differed", "chosen"]);
    // The fallback has answered already if it is one of the experts.
    let experts = json!({ "minimumAnswers": 2, "experts": [expert("travel"), smol()] });
    let one_of_them = router(&[&worker], &ensemble("Vote", &experts), &json!({})).await;
    let asked = worker.asked();
    assert_eq!(ask(&one_of_them, "travel=!break smol=d").await, ok("d"));
    assert_eq!(worker.asked(), asked + 2);
    // It fails as well.
    assert_eq!(ask(&lenient, "banking=a travel=!break kitchen=c smol=!full").await.0, 503);

    let strict = router(&[&worker], &ensemble("Vote", &all), &json!({ "onError": "Reject" })).await;
    let (status, message) = ask(&strict, text).await;
    assert_eq!(status, 503);
    assert!(message.starts_with("of the experts of the route `team` 2 answered, and 3 have to: travel: "), "{message}");
    // What all of them say of the request is said as they say it.
    let response = strict.post("/v1/chat/completions", chat("team", "!long")).await;
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["error"]["code"], "context_length_exceeded", "{answer}");

    // Known before anybody is asked.
    worker.change(|state| state.adapters.retain(|adapter| adapter.name != "travel"));
    while !ask(&strict, "hello").await.1.contains("are loaded") {}
    let (status, message) = ask(&strict, "hello").await;
    assert_eq!(status, 503, "{message}");
    assert!(message.contains("2 experts of its ensemble are loaded, and 3 have to answer"), "{message}");
    assert_eq!(ask(&lenient, "smol=d").await, ok("d"));
}

#[tokio::test]
async fn a_judge_chooses_by_number() {
    let worker = worker().await;
    let router = router(&[&worker], &ensemble("Judge", &json!({})), &json!({})).await;
    let (reason, candidates) = explained(&router, "banking=a~-0.1 travel=b kitchen=c smol=2").await;
    assert_eq!(reason, "no rule matched: ensemble of 3; 3 of 3 answered, chosen by smol");
    assert_eq!(candidates[1], json!(["travel", "chosen", ""]));
    let judged = worker.script.requests.lock().expect("no panic").last().expect("a request").0.clone();
    let constraint = judged.sampling.as_ref().and_then(|sampling| sampling.constraint.clone());
    let Some(Constraint::Choice(choice)) = constraint else { panic!("{judged:?}") };
    assert_eq!(choice.strings, ["1", "2", "3"]);
    let Some(Input::Messages(messages)) = judged.input else { panic!("messages") };
    assert!(messages.messages[0].content.contains("Answer 3:\nc\n"), "{messages:?}");
    // Its tokens are paid for, too.
    let answer: Value = router
        .post("/v1/chat/completions", chat("team", "banking=a travel=b kitchen=c smol=3"))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(answer["usage"]["prompt_tokens"], 12, "{answer}");
    assert_eq!(answer["choices"][0]["message"]["content"].as_str().map(str::trim), Some("c"));
    // The numbers are of the answers that there are.
    assert_eq!(ask(&router, "banking=!break travel=b kitchen=c smol=2").await, ok("c"));
    // There is nothing to judge about answers that say the same.
    let asked = worker.asked();
    let (reason, _) = explained(&router, "banking=a travel=A kitchen=a. smol=2").await;
    assert!(reason.ends_with("all of them the same: there was nothing to judge"), "{reason}");
    assert_eq!(worker.asked(), asked + 3);
}

#[tokio::test]
async fn without_its_judge_the_most_confident_answer_is_given() {
    let worker = worker().await;
    let soon = json!({ "timeoutMilliseconds": 1000 });
    let router = router(&[&worker], &ensemble("Judge", &soon), &json!({})).await;
    for (word, why) in [
        ("!break", "for smol did not choose: "),
        ("!never", "for smol did not choose: the deadline passed"),
        ("9", "for smol did not choose: it gave no number from 1 to 3"),
        ("maybe", "for smol did not choose: it gave no number from 1 to 3"),
    ] {
        let (reason, candidates) = explained(&router, &format!("banking=a travel=b~-0.1 kitchen=c smol={word}")).await;
        assert!(reason.contains("the most confident one with 0.90") && reason.contains(why), "{reason}");
        assert_eq!(candidates[1][1], "chosen");
    }
    assert!(counts(&router, "slm_router_ensembles_total{route=\"team\",outcome=\"judge_failed\"} 4").await);
}

#[tokio::test]
async fn experts_of_one_base_meet_on_one_worker() {
    let (one, other) = (worker().await, worker().await);
    let router = router(&[&one, &other], &ensemble("Best", &json!({})), &json!({})).await;
    for round in 1..=4 {
        assert_eq!(ask(&router, "banking=a travel=b kitchen=c").await, ok("a"));
        assert_eq!((one.asked() + other.asked(), one.asked() % 3), (3 * round, 0));
    }
    // A worker that is full is left by whom it refuses.
    one.script.full.store(true, std::sync::atomic::Ordering::Relaxed);
    for _ in 0..4 {
        assert_eq!(ask(&router, "banking=a travel=b kitchen=c").await, ok("a"));
    }
}

#[tokio::test]
async fn a_rule_selects_one_expert_and_nobody_else_is_asked() {
    let worker = worker().await;
    let rules = json!({ "rules": [{ "when": "text.contains('money')", "to": expert("banking") }] });
    let router = router(&[&worker], &ensemble("Vote", &json!({})), &rules).await;
    assert_eq!(ask(&router, "money").await, ok("banking: money"));
    assert_eq!(worker.asked(), 1);
    assert_eq!(ask(&router, "banking=a travel=b kitchen=b").await, ok("b"));
}

#[tokio::test]
async fn what_cannot_be_combined_is_refused_by_name() {
    let worker = worker().await;
    let router = router(&[&worker], &ensemble("Judge", &json!({})), &json!({})).await;
    let mut several = chat("team", "hello");
    several["n"] = 2.into();
    let mut calls = chat("team", "hello");
    calls["tools"] = json!([{ "type": "function", "function": { "name": "pay" } }]);
    for (path, body, param, says) in [
        ("/v1/chat/completions", several, "n", "`n` is 2, but the route `team` gives one answer of several experts"),
        ("/v1/chat/completions", calls, "tools", "tools cannot be called by the experts of the route `team`"),
        (
            "/v1/completions",
            json!({ "model": "team", "prompt": "hello", "best_of": 2 }),
            "best_of",
            "`best_of` is 2, but the route `team` gives one answer",
        ),
        (
            "/v1/completions",
            json!({ "model": "team", "prompt": [1, 2, 3] }),
            "prompt",
            "prompt cannot be shown to the judge of the route `team`",
        ),
    ] {
        let response = router.post(path, body).await;
        let status = response.status().as_u16();
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.starts_with(says)), "{answer}");
    }
    assert_eq!(worker.asked(), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_every_expert_with_it() {
    let worker = worker().await;
    let router = Arc::new(router(&[&worker], &ensemble("Best", &json!({})), &json!({})).await);
    let asking = {
        let router = Arc::clone(&router);
        tokio::spawn(async move { ask(&router, "banking=!never travel=!never kitchen=!never").await })
    };
    worker.script.begun.subscribe().wait_for(|begun| *begun == 3).await.expect("a worker");
    asking.abort();
    worker.script.cancelled.subscribe().wait_for(|cancelled| *cancelled == 3).await.expect("a worker");
}

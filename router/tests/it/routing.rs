//! Residency, the wait queue and retries.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::{Value, json};
use slm_router::Limits;

use crate::{
    harness::{Router, chat, limits, streamed, swarm},
    worker::Worker,
};

async fn text(response: reqwest::Response) -> String {
    let answer: Value = response.json().await.expect("JSON");
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn rules_choose_and_explain() {
    let (router, worker) = Router::over_one_worker().await;
    let mut body = chat("assistant", "block my CARD");
    body["explain"] = true.into();
    let response = router.post("/v1/chat/completions", body).await;
    assert_eq!(response.headers()["x-slm-expert"], "banking");
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["model"], "assistant");
    let decision = &answer["x_slm_decision"];
    assert_eq!((&decision["route"], &decision["worker"]), (&json!("assistant"), &json!(worker.url)));
    assert_eq!(decision["chosen"]["digest"], "sha256:banking");
    assert_eq!(decision["candidates"][1]["outcome"], "not_reached");

    let mut body = chat("assistant", "hello");
    body["metadata"] = json!({"topic": "travel"});
    assert_eq!(text(router.post("/v1/chat/completions", body).await).await, "travel: hello ");
    let nobody = chat("assistant", "hello");
    assert_eq!(text(router.post("/v1/chat/completions", nobody).await).await, "smol: hello ");
}

#[tokio::test]
async fn a_route_passes_over_what_is_not_loaded() {
    let worker = Worker::start("smol", &["travel"]).await;
    let router = Router::start(swarm(&[&worker]), limits()).await;
    let mut body = chat("assistant", "my card");
    body["explain"] = true.into();
    let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "smol: my card ");
    let reason = answer["x_slm_decision"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("has not loaded banking: fallback"), "{reason}");
}

#[tokio::test]
async fn a_request_waits_for_its_expert() {
    let worker = Worker::start("smol", &["travel"]).await;
    let router = Router::start(swarm(&[&worker]), limits()).await;
    let waiting = router.post("/v1/chat/completions", chat("banking", "hi"));
    let loading = async {
        // Once the request is counted as waiting, the adapter comes.
        loop {
            let metrics = router.client.get(router.url("/metrics")).send().await.expect("an answer");
            if metrics.text().await.expect("text").contains("slm_router_requests_holding 1") {
                break worker.load("banking");
            }
        }
    };
    let (answer, ()) = tokio::join!(waiting, loading);
    assert_eq!(text(answer).await, "banking: hi ");
}

#[tokio::test]
async fn waiting_ends_and_is_bounded() {
    let worker = Worker::start("smol", &["travel"]).await;
    let short = Limits { wait_max: Duration::from_millis(50), ..limits() };
    let router = Router::start(swarm(&[&worker]), short).await;
    let response = router.post("/v1/chat/completions", chat("banking", "hi")).await;
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"2".parse().expect("a value")));
    let error: Value = response.json().await.expect("JSON");
    let message = error["error"]["message"].as_str().expect("a message");
    let expected = "`banking` is not loaded on any worker now: its workers have not loaded it; try again in 2 s";
    assert_eq!(message, expected, "without an address");

    let none = Limits { wait_queue_max: 0, ..limits() };
    let router = Router::start(swarm(&[&worker]), none).await;
    let response = router.post("/v1/chat/completions", chat("banking", "hi")).await;
    assert_eq!(response.status(), 429);
}

#[tokio::test]
async fn an_adapter_that_cannot_be_loaded_is_refused_at_once() {
    let worker = Worker::start("smol", &["travel"]).await;
    let mut swarm = swarm(&[&worker]);
    swarm.adapters[0].refused = "the adapter uses DoRA".to_owned();
    // Waiting would take longer than the test may.
    let patient = Limits { wait_max: Duration::from_secs(3600), ..limits() };
    let router = Router::start(swarm.clone(), patient).await;
    let response = router.post("/v1/chat/completions", chat("banking", "hi")).await;
    assert_eq!((response.status().as_u16(), response.headers().get("retry-after")), (400, None));
    let error: Value = response.json().await.expect("JSON");
    let expected = serde_json::json!({
        "message": "adapter `banking` cannot be loaded: the adapter uses DoRA",
        "type": "invalid_request_error", "param": "model", "code": "adapter_not_loadable",
    });
    assert_eq!(error["error"], expected);
    let (status, readyz) = router.get("/readyz").await;
    assert_eq!(status, 503);
    let missing = readyz["missing"].as_array().expect("a list");
    let why = missing.iter().find(|missing| missing["name"] == "banking").map(|missing| &missing["why"]);
    assert_eq!(why, Some(&"adapter `banking` cannot be loaded: the adapter uses DoRA".into()), "{readyz}");
    // A route passes over it.
    assert_eq!(text(router.post("/v1/chat/completions", chat("assistant", "my card")).await).await, "smol: my card ");
    // Once it is loaded all the same, it answers.
    worker.load("banking");
    swarm.generation += 1;
    swarm.adapters[0].refused.clear();
    router.swarm.send_replace(std::sync::Arc::new(swarm));
    assert_eq!(text(router.post("/v1/chat/completions", chat("banking", "hi")).await).await, "banking: hi ");
}

#[tokio::test]
async fn another_worker_answers_before_the_first_token() {
    let workers =
        [Worker::start("smol", &["banking", "travel"]).await, Worker::start("smol", &["banking", "travel"]).await];
    let router = Router::start(swarm(&[&workers[0], &workers[1]]), limits()).await;
    router.ready().await;
    // Whoever is asked first, one of them fails and the other answers.
    workers[0].script.failures.store(u32::MAX, Ordering::Relaxed);
    for _ in 0..8 {
        assert_eq!(text(router.post("/v1/chat/completions", chat("smol", "hi")).await).await, "smol: hi ");
    }
    assert!(workers[0].asked() > 0, "eight draws reach both");
    // After the first token nobody else goes on.
    workers[0].script.failures.store(0, Ordering::Relaxed);
    let asked = || workers[0].asked() + workers[1].asked();
    let before = asked();
    let broken = router.post("/v1/chat/completions", streamed("smol", "one !break")).await.text().await.expect("text");
    assert!(broken.contains("\"error\"") && asked() == before + 1, "{broken}");
}

#[tokio::test]
async fn another_worker_answers_for_one_that_is_full() {
    let workers = [
        Worker::start("smol", &["banking", "travel"]).await,
        Worker::start("smol", &["banking", "travel"]).await,
        Worker::start("smol", &["travel"]).await,
    ];
    let router = Router::start(swarm(&[&workers[0], &workers[1], &workers[2]]), limits()).await;
    let asked = || workers.iter().map(Worker::asked).collect::<Vec<_>>();
    // Once both have answered, the router knows that both hold it.
    while asked()[..2].contains(&0) {
        router.post("/v1/chat/completions", chat("banking", "hi")).await;
    }
    workers[0].script.full.store(true, Ordering::Relaxed);
    let before = asked();
    for _ in 0..8 {
        assert_eq!(text(router.post("/v1/chat/completions", chat("banking", "hi")).await).await, "banking: hi ");
    }
    assert!(asked()[0] > before[0], "eight draws reach both");

    // When all are full, each has been asked once; the one without the adapter never.
    workers[1].script.full.store(true, Ordering::Relaxed);
    let before = asked();
    let response = router.post("/v1/chat/completions", chat("banking", "hi")).await;
    assert_eq!((response.status().as_u16(), response.headers().contains_key("retry-after")), (429, true));
    let error: Value = response.json().await.expect("JSON");
    assert_eq!(
        (&error["error"]["code"], &error["error"]["message"]),
        (&json!("overloaded"), &json!("told to be full"))
    );
    assert_eq!(asked(), [before[0] + 1, before[1] + 1, 0]);
}

#[tokio::test]
async fn a_full_worker_beside_a_broken_one_is_heard_at_once() {
    let workers =
        [Worker::start("smol", &["banking", "travel"]).await, Worker::start("smol", &["banking", "travel"]).await];
    let router = Router::start(swarm(&[&workers[0], &workers[1]]), limits()).await;
    router.ready().await;
    workers[0].script.full.store(true, Ordering::Relaxed);
    workers[1].script.failures.store(u32::MAX, Ordering::Relaxed);
    for _ in 0..4 {
        assert_eq!(router.post("/v1/chat/completions", chat("smol", "hi")).await.status(), 429);
    }
}

#[tokio::test]
async fn a_worker_that_goes_away_is_not_asked() {
    let stays = Worker::start("smol", &["banking", "travel"]).await;
    let goes = Worker::start("smol", &["banking", "travel"]).await;
    let router = Router::start(swarm(&[&goes, &stays]), limits()).await;
    router.ready().await;
    drop(goes);
    for _ in 0..4 {
        assert_eq!(text(router.post("/v1/chat/completions", chat("banking", "hi")).await).await, "banking: hi ");
    }
}

#[tokio::test]
async fn a_swarm_that_changes_changes_the_names() {
    let (router, worker) = Router::over_one_worker().await;
    let mut next = swarm(&[&worker]);
    next.generation = 2;
    next.adapters.retain(|adapter| adapter.name != "travel");
    next.routes.clear();
    router.swarm.send_replace(std::sync::Arc::new(next));
    // The change arrives as a whole: once the route is unknown, so is the adapter.
    loop {
        if router.get("/v1/models/assistant").await.0 == 404 {
            break;
        }
    }
    let response = router.post("/v1/chat/completions", chat("travel", "hi")).await;
    assert_eq!(response.status(), 404, "it is loaded, but no longer part of the swarm");
}

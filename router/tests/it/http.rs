//! The OpenAI-compatible API.

use serde_json::{Value, json};

use crate::harness::{Router, chat, events, limits, streamed, swarm};
use crate::worker::Worker;

#[tokio::test]
async fn chat_answers_whole() {
    let (router, worker) = Router::over_one_worker().await;
    let mut body = chat("banking", "hello there");
    body["logprobs"] = true.into();
    body["seed"] = 7.into();
    let response = router.post("/v1/chat/completions", body).await;
    assert_eq!(response.headers()["x-slm-expert"], "banking");
    assert!(response.headers().contains_key("x-request-id"));
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "banking");
    assert_eq!(answer["system_fingerprint"], "sha256:banking");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "banking: hello there ", "refusal": null}));
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["logprobs"]["content"][0]["token"], "banking: ");
    let usage = json!({
        "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6, "prompt_tokens_details": {"cached_tokens": 2},
    });
    assert_eq!(answer["usage"], usage);
    assert!(answer.get("x_slm_decision").is_none());
    let requests = worker.script.requests.lock().expect("no panic");
    assert_eq!(requests[0].0.sampling.as_ref().expect("sampling").seed, Some(7));
}

#[tokio::test]
async fn chat_streams() {
    let (router, _worker) = Router::over_one_worker().await;
    let mut body = streamed("smol", "one two");
    body["stream_options"] = json!({"include_usage": true});
    let response = router.post("/v1/chat/completions", body).await;
    assert!(response.headers()["content-type"].to_str().expect("text").starts_with("text/event-stream"));
    let events = events(&response.text().await.expect("text"));
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(chunks[0]["usage"], Value::Null);
    let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "smol: one two ");
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[chunks.len() - 1]["choices"], json!([]));
    assert_eq!(chunks[chunks.len() - 1]["usage"]["total_tokens"], 6);
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["object"] == "chat.completion.chunk"));
}

#[tokio::test]
async fn completions_answer_several_prompts() {
    let (router, _worker) = Router::over_one_worker().await;
    let body = json!({"model": "smol", "prompt": ["a b", "c"], "logprobs": 1});
    let answer: Value = router.post("/v1/completions", body.clone()).await.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["text"], "smol: a b ");
    assert_eq!(answer["choices"][1]["text"], "smol: c ");
    assert_eq!(answer["choices"][0]["logprobs"]["text_offset"], json!([0, 6, 8]));
    assert_eq!(answer["usage"]["prompt_tokens"], 6);

    let mut body = body;
    body["stream"] = true.into();
    let text = router.post("/v1/completions", body).await.text().await.expect("text");
    let mut texts = [String::new(), String::new()];
    for event in events(&text).iter().filter(|event| *event != "[DONE]") {
        let chunk: Value = serde_json::from_str(event).expect("JSON");
        let choice = &chunk["choices"][0];
        let index = usize::try_from(choice["index"].as_u64().expect("an index")).expect("small");
        texts[index].push_str(choice["text"].as_str().expect("text"));
    }
    assert_eq!(texts, ["smol: a b ", "smol: c "]);

    let ids = json!({"model": "smol", "prompt": [5, 6]});
    let answer: Value = router.post("/v1/completions", ids).await.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["text"], "smol: [5, 6] ");
}

#[tokio::test]
async fn refusals_have_the_openai_shape() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let limits = slm_router::Limits { body_bytes_max: 512, ..limits() };
    let router = Router::start(swarm(&[&worker]), limits).await;
    router.ready().await;
    let cases = [
        (chat("bankin", "hi"), 404, json!("model"), json!("model_not_found"), "did you mean `banking`?"),
        (chat("", "hi"), 400, json!("model"), Value::Null, "`model` is missing"),
        (chat("smol", "!long"), 400, json!("messages"), json!("context_length_exceeded"), "9 tokens"),
        (chat("smol", "!full"), 429, Value::Null, json!("overloaded"), "queue is full"),
        (chat("smol", &"x".repeat(600)), 413, Value::Null, json!("request_too_large"), "more than the 512 bytes"),
        (json!({"model": "smol"}), 400, json!("messages"), Value::Null, "`messages` is missing"),
    ];
    for (body, status, param, code, message) in cases {
        let response = router.post("/v1/chat/completions", body).await;
        assert_eq!(response.status(), status, "{message}");
        let error: Value = response.json().await.expect("JSON");
        assert_eq!((&error["error"]["param"], &error["error"]["code"]), (&param, &code), "{error}");
        assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains(message)), "{error}");
        assert!(error["error"]["type"].is_string());
    }
    let (status, error) = router.get("/v1/nothing").await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("unknown_url")));
    let (status, error) = router.get("/v1/chat/completions").await;
    assert_eq!((status, &error["error"]["code"]), (405, &json!("method_not_allowed")));
    let (status, error) = router.get("/v1/models/%FF").await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    // What a browser sends from any page without asking first, and what `curl -d` sends by itself.
    for path in ["/v1/completions", "/v1/chat/completions"] {
        for other in ["multipart/form-data", "application/x-www-form-urlencoded", "text/plain;charset=UTF-8"] {
            let body = chat("smol", "hi").to_string();
            let request = router.client.post(router.url(path)).header("content-type", other).body(body);
            let refused = request.send().await.expect("an answer");
            let shape = refused.headers()["content-type"].as_bytes().to_vec();
            assert_eq!((refused.status().as_u16(), shape.as_slice()), (415, &b"application/json"[..]));
            let error: Value = refused.json().await.expect("JSON");
            assert_eq!(error["error"]["code"], "unsupported_content_type");
            let message = error["error"]["message"].as_str().expect("a message");
            assert!(message.contains("send the header `Content-Type: application/json`"), "{message}");
        }
    }
    let page = router.client.post(router.url("/v1/chat/completions")).header("origin", "https://evil.example");
    let page = page.json(&chat("smol", "hi")).send().await.expect("an answer");
    let (status, error) = (page.status(), page.json::<Value>().await.expect("JSON"));
    assert_eq!((status.as_u16(), &error["error"]["code"]), (403, &json!("origin_not_allowed")));
    let invalid =
        router.client.post(router.url("/v1/completions")).body(vec![b'{', 0xff]).send().await.expect("an answer");
    assert_eq!(invalid.status(), 400);
    assert!(invalid.text().await.expect("text").contains("not UTF-8"));
}

#[tokio::test]
async fn an_error_mid_stream_is_an_event() {
    let (router, _worker) = Router::over_one_worker().await;
    let text = router.post("/v1/chat/completions", streamed("smol", "one !break")).await.text().await.expect("text");
    let events = events(&text);
    let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON, not [DONE]");
    assert_eq!(last["error"]["code"], "unavailable");
    assert!(text.contains("one "));
}

#[tokio::test]
async fn models_are_listed() {
    let (router, worker) = Router::over_one_worker().await;
    let (_, list) = router.get("/v1/models").await;
    let names: Vec<&str> = list["data"].as_array().expect("a list").iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(names, ["smol", "banking", "travel", "assistant"]);
    let (status, one) = router.get("/v1/models/banking").await;
    assert_eq!((status, &one["x_slm"]["workers"]), (200, &json!([worker.url])));
    let (status, error) = router.get("/v1/models/bankng").await;
    assert_eq!(status, 404);
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("`banking`")), "{error}");
}

#[tokio::test]
async fn a_caller_that_hangs_up_stops_the_worker() {
    let (router, worker) = Router::over_one_worker().await;
    let mut cancelled = worker.script.cancelled.subscribe();
    // Mid-stream.
    let mut response = router.post("/v1/chat/completions", streamed("smol", "one !never")).await;
    response.chunk().await.expect("a chunk").expect("a chunk");
    drop(response);
    cancelled.wait_for(|cancelled| *cancelled == 1).await.expect("the script lives");
    // Before the first token.
    let mut begun = worker.script.begun.subscribe();
    begun.borrow_and_update();
    let request = router.client.post(router.url("/v1/completions")).json(&json!({"model": "smol", "prompt": "!gate"}));
    let task = tokio::spawn(request.send());
    begun.changed().await.expect("the script lives");
    task.abort();
    cancelled.wait_for(|cancelled| *cancelled == 2).await.expect("the script lives");
}

#[tokio::test]
async fn metrics_count() {
    let (router, _worker) = Router::over_one_worker().await;
    router.post("/v1/chat/completions", chat("smol", "hi")).await.text().await.expect("text");
    router.post("/v1/chat/completions", chat("nobody", "hi")).await.text().await.expect("text");
    let text = router.client.get(router.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
    for line in [
        "slm_router_requests_total{api=\"http_chat\",outcome=\"ok\"} 1",
        "slm_router_requests_total{api=\"http_chat\",outcome=\"not_found\"} 1",
        "slm_router_workers_connected 1",
        "slm_router_requests_running 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn the_page_is_for_everybody_and_takes_nothing_from_elsewhere() {
    let (router, _worker) = Router::over_one_worker().await;
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let response = router.raw(path).await;
        assert_eq!(response.status().as_u16(), 200, "{path}");
        let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
        assert!(header("content-type").starts_with(kind), "{path}");
        assert!(header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn several_answers_come_from_the_worker_that_has_the_prompt() {
    let worker = async || Worker::start("smol", &["banking", "travel"]).await;
    let workers = [worker().await, worker().await];
    let router = Router::start(swarm(&[&workers[0], &workers[1]]), limits()).await;
    router.ready().await;
    let mut body = chat("smol", "hello");
    (body["n"], body["seed"]) = (6.into(), 7.into());
    let answer: Value = router.post("/v1/chat/completions", body).await.json().await.expect("JSON");
    let choices = answer["choices"].as_array().expect("choices");
    let indices: Vec<_> = choices.iter().map(|choice| choice["index"].as_u64()).collect();
    assert_eq!(indices, (0..6).map(Some).collect::<Vec<_>>());
    // The prompt counts once.
    assert_eq!((&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]), (&json!(3), &json!(12)));
    let mut asked = workers.iter().map(Worker::asked).collect::<Vec<_>>();
    asked.sort_unstable();
    assert_eq!(asked, [0, 6]);
    let requests = workers.iter().flat_map(|worker| worker.script.requests.lock().expect("no panic").clone());
    let mut seeds: Vec<_> =
        requests.filter_map(|(request, _)| request.sampling.and_then(|sampling| sampling.seed)).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [7, 8, 9, 10, 11, 12]);
}

//! Manifests and callers that mean no good, or do not know what they do: what they break is their own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use slm_proto::v1::{
    GenerateRequest, generate_request::Input, generate_response::Event, generation_client::GenerationClient,
};
use slm_router::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tonic::transport::Channel;

use crate::{
    guarded::{Guarded, OPS, TEAM, mount},
    harness::{Router, chat, limits, streamed, swarm},
    worker::Worker,
};

#[tokio::test]
async fn no_rule_ends_the_fleet() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let router = Router::start(swarm(&[&worker]), limits()).await;
    router.ready().await;
    for when in
        [r#"text.exists(c, c == "a")"#, "Foo{a: 1}.a == 1", "metadata.exists(a, metadata.exists(b, a + b == 'x'))"]
    {
        let mut next = swarm(&[&worker]);
        next.generation = 2;
        next.routes[0].spec.rules[0].when = when.to_owned();
        router.swarm.send_replace(Arc::new(next));
        // The fallback answers, and the router still hears of what comes next.
        let answer = router.post("/v1/chat/completions", chat("assistant", "my card")).await;
        assert_eq!(answer.headers()["x-slm-expert"], "smol", "{when}");
    }
    let mut next = swarm(&[&worker]);
    next.generation = 3;
    router.swarm.send_replace(Arc::new(next));
    while router.get("/readyz").await.1["generation"] != 3 {}
    let answer = router.post("/v1/chat/completions", chat("assistant", "my card")).await;
    assert_eq!(answer.headers()["x-slm-expert"], "banking");
}

#[tokio::test]
async fn metadata_has_bounds() {
    let (router, _worker) = Router::over_one_worker().await;
    let mut body = chat("smol", "hi");
    body["metadata"] = (0..65).map(|n| (n.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    let answer = router.post("/v1/chat/completions", body).await;
    assert_eq!(answer.status(), 400);
    let error: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!(error["error"]["param"], "metadata");
    assert!(error.to_string().contains("65 entries"), "{error}");
}

/// An endpoint whose streams hold 64 KiB, as a frugal client's do.
async fn small_windows(router: &Router) -> GenerationClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", router.bound.grpc)).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(16 << 20);
    GenerationClient::new(endpoint.connect().await.expect("a connection")).max_decoding_message_size(16 << 20)
}

fn prompt(text: &str) -> GenerateRequest {
    GenerateRequest { model: "smol".to_owned(), input: Some(Input::Prompt(text.to_owned())), ..Default::default() }
}

#[tokio::test]
async fn those_who_do_not_read_hold_nobody_up() {
    let (router, worker) = Router::over_one_worker().await;
    let mut client = small_windows(&router).await;
    // Each has a megabyte to come, of which its reader takes nothing: two hundred times what one connection's default
    // window held, all over the router's one connection to the worker.
    let mut unread = Vec::new();
    for _ in 0..200 {
        unread.push(client.clone().generate(prompt("!much")).await.expect("begins").into_inner());
    }
    let mut stream = client.generate(prompt("!much")).await.expect("begins").into_inner();
    let mut bytes = 0;
    while let Some(message) = stream.message().await.expect("the whole answer") {
        if let Some(Event::Delta(delta)) = message.event {
            bytes += delta.text.len();
        }
    }
    assert!(bytes > 1 << 20, "{bytes}");
    // The worker's state is still heard of.
    worker.load("late");
    let mut next = swarm(&[&worker]);
    next.generation = 2;
    next.adapters[0].name = "late".to_owned();
    router.swarm.send_replace(Arc::new(next));
    let answer = router.post("/v1/chat/completions", chat("late", "hi")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(unread.len(), 200);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let impatient = Limits { reader_idle: Duration::from_millis(200), ..limits() };
    let router = Router::start(swarm(&[&worker]), impatient).await;
    router.ready().await;
    let mut client = small_windows(&router).await;
    let mut stream = client.generate(prompt("!much")).await.expect("begins").into_inner();
    worker.script.cancelled.subscribe().wait_for(|cancelled| *cancelled == 1).await.expect("the worker lives");
    let error = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an answer that was cut looks whole"),
            Err(status) => break status,
        }
    };
    assert_eq!(error.code(), tonic::Code::Aborted);
    assert!(error.message().contains("nothing of it was read"), "{error}");
}

#[tokio::test]
async fn an_http_caller_that_does_not_read_is_left() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let impatient = Limits { reader_idle: Duration::from_millis(200), ..limits() };
    let router = Router::start(swarm(&[&worker]), impatient).await;
    router.ready().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    // Loopback's buffers would take megabytes.
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut connection = socket.connect(router.bound.http).await.expect("a connection");
    let body = streamed("smol", &"!much ".repeat(16)).to_string();
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes()).await.expect("written");
    worker.script.cancelled.subscribe().wait_for(|cancelled| *cancelled == 1).await.expect("the worker lives");
}

#[tokio::test]
async fn a_worker_that_sends_nothing_is_left() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let impatient = Limits { worker_idle: Duration::from_millis(200), ..limits() };
    let router = Router::start(swarm(&[&worker]), impatient).await;
    router.ready().await;
    let silent = router.post("/v1/chat/completions", chat("smol", "one !never")).await;
    assert_eq!(silent.status(), 503);
    let text = silent.text().await.expect("a body");
    assert!(text.contains("has sent nothing"), "{text}");
}

#[tokio::test]
async fn connections_that_do_not_speak_end() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let impatient = Limits { headers: Duration::from_millis(300), body: Duration::from_millis(300), ..limits() };
    let router = Router::start(swarm(&[&worker]), impatient).await;
    router.ready().await;
    // Nothing, half a preface, half a request line, headers without an end, and a connection kept open in silence.
    let openings: [&[u8]; 5] = [
        b"",
        b"PRI * HTTP/2",
        b"POST /v1",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-a: b\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ];
    for endpoint in [router.bound.http, router.bound.grpc] {
        for opening in openings {
            let mut connection = TcpStream::connect(endpoint).await.expect("a connection");
            connection.write_all(opening).await.expect("written");
            // Ends, however it ends.
            let _ = connection.read_to_end(&mut Vec::new()).await;
        }
    }
}

#[tokio::test]
async fn a_body_that_trickles_in_is_refused() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let impatient = Limits { body: Duration::from_millis(300), ..limits() };
    let router = Router::start(swarm(&[&worker]), impatient).await;
    router.ready().await;
    let mut connection = TcpStream::connect(router.bound.http).await.expect("a connection");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{";
    connection.write_all(head.as_bytes()).await.expect("written");
    let mut answer = vec![0; 4096];
    let read = connection.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("was not complete after"), "{answer}");
}

#[tokio::test]
async fn many_idle_connections_leave_room() {
    let (router, _worker) = Router::over_one_worker().await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(router.bound.http).await.expect("a connection"));
    }
    assert_eq!(router.post("/v1/chat/completions", chat("smol", "hi")).await.status(), 200);
    assert_eq!(idle.len(), 1000);
}

#[tokio::test]
async fn one_missing_expert_does_not_take_every_place() {
    let worker = Worker::start("smol", &["banking"]).await;
    let few = Limits { wait_queue_max: 8, wait_queue_expert_max: 2, ..limits() };
    let router = Arc::new(Router::start(swarm(&[&worker]), few).await);
    let metrics = async |text: &str| {
        let url = router.url("/metrics");
        while !router.client.get(&url).send().await.expect("metrics").text().await.expect("text").contains(text) {}
    };
    let ask = |name: &'static str| {
        let router = Arc::clone(&router);
        tokio::spawn(async move { router.post("/v1/chat/completions", chat(name, "hi")).await.status().as_u16() })
    };
    // The worker is there before anybody is counted as waiting for it.
    assert_eq!(ask("banking").await.expect("asked"), 200);
    let waiting = [ask("travel"), ask("travel")];
    metrics("slm_router_requests_holding 2").await;
    assert_eq!(ask("travel").await.expect("asked"), 429);
    let mut next = swarm(&[&worker]);
    next.generation = 2;
    next.adapters[0].name = "other".to_owned();
    router.swarm.send_replace(Arc::new(next));
    let other = ask("other");
    metrics("slm_router_requests_holding 3").await;
    worker.load("travel");
    worker.load("other");
    for asked in waiting.into_iter().chain([other]) {
        assert_eq!(asked.await.expect("asked"), 200);
    }
}

#[tokio::test]
async fn a_token_says_who_is_asked_for_and_how_urgent_it_may_be() {
    let guarded = Guarded::start().await;
    let tokens =
        format!("- name: ops\n  token: {OPS}\n  priority: -10\n- name: team\n  token: {TEAM}\n  group: support\n");
    mount(guarded.folder.path(), 1, &guarded.certificate, &tokens);
    let mut body = chat("smol", "hi");
    body["priority"] = (-20).into();
    // The new list is in use once the team's token may name the base.
    while guarded.post("/v1/chat/completions", Some(TEAM), &body).await.status() != 200 {}
    assert_eq!(guarded.post("/v1/chat/completions", Some(OPS), &body).await.status(), 200);
    body["priority"] = 7.into();
    assert_eq!(guarded.post("/v1/chat/completions", Some(TEAM), &body).await.status(), 200);
    let requests = guarded.worker.script.requests.lock().expect("no panic");
    let seen: Vec<(&str, i32)> =
        requests.iter().map(|(request, _)| (request.tenant.as_str(), request.priority)).collect();
    assert_eq!(seen, [("group:support", 0), ("token:ops", -10), ("group:support", 7)]);
}

#[tokio::test]
async fn a_caller_cannot_choose_its_tenant() {
    let (router, worker) = Router::over_one_worker().await;
    let mut client = GenerationClient::new(router.grpc().await);
    let request = GenerateRequest { tenant: "token:ops".to_owned(), ..prompt("hi") };
    client.complete(request).await.expect("an answer");
    assert_eq!(worker.script.requests.lock().expect("no panic")[0].0.tenant, "");
}

#[tokio::test]
async fn rules_are_bounded_whatever_the_caller_sends() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let mut dear = swarm(&[&worker]);
    dear.routes[0].spec.rules[0].when = "messages.filter(m, m.role == 'user').size() > 100".to_owned();
    let router = Router::start(dear, limits()).await;
    router.ready().await;
    // As many as HTTP takes.
    let messages: Vec<_> = (0..16_384).map(|_| json!({"role": "user", "content": ""})).collect();
    let begun = Instant::now();
    let mut client = GenerationClient::new(router.grpc().await);
    let message = slm_proto::v1::Message { role: "user".to_owned(), ..Default::default() };
    let many = slm_proto::v1::Messages { messages: vec![message; 60_000] };
    let request = GenerateRequest { input: Some(Input::Messages(many)), model: "assistant".into(), ..prompt("") };
    let answer = client.complete(request).await.expect("an answer").into_inner();
    assert_eq!(answer.started.expect("started").expert.expect("an expert").name, "smol");
    assert_eq!(
        router.post("/v1/chat/completions", json!({"model": "assistant", "messages": messages})).await.status(),
        200
    );
    // No bar, but before it was some 10^9 copies.
    println!("{:?}", begun.elapsed());
}

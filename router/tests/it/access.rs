//! Access to the public endpoint: real handshakes, real files.

use std::{fs, sync::Arc, time::Duration};

use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use slm_proto::v1::{
    GenerateRequest, ListModelsRequest, generate_request::Input, generation_client::GenerationClient,
    swarm_client::SwarmClient,
};
use slm_router::Swarm;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient};

use crate::{
    guarded::{Certificate, Guarded, OPS, TEAM, authorized, client, guarded_config, knock, mount, tokens},
    harness::{chat, streamed},
};

const CHAT: &str = "/v1/chat/completions";

fn prompt(model: &str) -> GenerateRequest {
    GenerateRequest {
        model: model.to_owned(),
        input: Some(Input::Prompt("hi".to_owned())),
        ..GenerateRequest::default()
    }
}

#[tokio::test]
async fn http_needs_a_token() {
    let guarded = Guarded::start().await;
    let cases = [(None, "Bearer"), (Some("another-0123456789"), "Bearer error=\"invalid_token\"")];
    for (token, challenge) in cases {
        let response = guarded.post(CHAT, token, &chat("banking", "hi")).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["www-authenticate"]),
            (401, &challenge.parse().expect("a value"))
        );
        let error: Value = response.json().await.expect("JSON");
        assert_eq!(
            (&error["error"]["type"], &error["error"]["code"]),
            (&json!("invalid_request_error"), &json!("invalid_api_key"))
        );
        assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains("token")), "{error}");
    }
    let basic = guarded.router.client.get(guarded.url("/v1/models")).basic_auth("ops", Some(OPS));
    assert_eq!(basic.send().await.expect("an answer").status(), 401);
    // Whatever is not a probe needs one: not even which paths there are is told.
    for path in ["/v1/models", "/v1/models/smol", "/metrics", "/nothing"] {
        assert_eq!(guarded.get(path, None).await.0, 401, "{path}");
    }
    assert_eq!(guarded.worker.asked(), 0);
    let answer: Value = guarded.post(CHAT, Some(OPS), &chat("smol", "hi")).await.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "smol: hi ");
}

#[tokio::test]
async fn probes_need_none_and_tell_outsiders_nothing() {
    let guarded = Guarded::start().await;
    assert_eq!(guarded.get("/healthz", None).await, (200, "ok\n".to_owned()));
    assert_eq!(guarded.get("/readyz", None).await, (200, "ready\n".to_owned()));
    assert_eq!(guarded.get("/metrics", Some(OPS)).await.0, 404);
    guarded.post(CHAT, Some(TEAM), &chat("banking", "hi")).await.text().await.expect("text");
    guarded.get("/v1/models", None).await;

    let probes = guarded.router.bound.probes.expect("an address");
    let plain = reqwest::Client::builder().no_proxy().build().expect("a client");
    let text = async |path: &str| {
        let response = plain.get(format!("http://{probes}{path}")).send().await.expect("an answer");
        response.text().await.expect("text")
    };
    assert_eq!(text("/readyz").await, r#"{"ready":true,"generation":1,"missing":[]}"#);
    let metrics = text("/metrics").await;
    for line in [
        "slm_router_caller_requests_total{caller=\"team\",outcome=\"ok\"} 1",
        "slm_router_caller_tokens_total{caller=\"team\",kind=\"completion\"} 2",
        "slm_router_unauthorized_total 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains(TEAM));
    // Nothing else is there.
    assert_eq!(plain.get(format!("http://{probes}/v1/models")).send().await.expect("an answer").status(), 404);
}

#[tokio::test]
async fn what_a_token_may_not_name_does_not_exist() {
    let guarded = Guarded::start().await;
    let names = async |token: &str| {
        let (_, list) = guarded.get("/v1/models", Some(token)).await;
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let names = list["data"].as_array().expect("a list").iter().map(|model| model["id"].to_string());
        names.collect::<Vec<_>>().join(" ").replace('"', "")
    };
    assert_eq!(names(OPS).await, "smol banking travel assistant");
    assert_eq!(names(TEAM).await, "banking assistant");

    // The same words, whether it exists or not.
    for name in ["travel", "trave"] {
        let response = guarded.post(CHAT, Some(TEAM), &chat(name, "hi")).await;
        assert_eq!(response.status(), 404);
        let error: Value = response.json().await.expect("JSON");
        let message = format!("no model, adapter or route is named `{name}`");
        let expected =
            json!({"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"});
        assert_eq!(error["error"], expected);
        assert_eq!(guarded.get(&format!("/v1/models/{name}"), Some(TEAM)).await.0, 404);
    }
    // A route ends where its author wanted.
    let mut body = chat("assistant", "hello");
    body["metadata"] = json!({"topic": "travel"});
    let answer: Value = guarded.post(CHAT, Some(TEAM), &body).await.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "travel: hello ");
}

#[tokio::test]
async fn grpc_needs_a_token_and_keeps_to_it() {
    let guarded = Guarded::start().await;
    let channel = guarded.grpc().await;
    let mut generation = GenerationClient::new(channel.clone());
    for token in [None, Some("another-0123456789")] {
        let refused = generation.complete(authorized(prompt("banking"), token)).await.expect_err("no token");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    let completion = generation.complete(authorized(prompt("banking"), Some(TEAM))).await.expect("an answer");
    assert_eq!(completion.into_inner().text, "banking: hi ");
    let mut swarm = SwarmClient::new(channel.clone());
    for name in ["travel", "trave"] {
        let message = format!("no model, adapter or route is named `{name}`");
        let refused = generation.complete(authorized(prompt(name), Some(TEAM))).await.expect_err(name);
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, &*message));
        let refused = swarm.explain(authorized(prompt(name), Some(TEAM))).await.expect_err(name);
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, &*message));
    }
    let listed = swarm.list_models(authorized(ListModelsRequest {}, Some(TEAM))).await.expect("a list").into_inner();
    assert_eq!(listed.models.iter().map(|model| &*model.name).collect::<Vec<_>>(), ["banking", "assistant"]);
    assert_eq!(swarm.list_models(ListModelsRequest {}).await.expect_err("no token").code(), Code::Unauthenticated);

    let service = "slm.v1.Generation".to_owned();
    HealthClient::new(channel.clone()).check(HealthCheckRequest { service }).await.expect("health needs none");
    let mut reflection = ServerReflectionClient::new(channel);
    let requests = || futures::stream::empty::<ServerReflectionRequest>();
    let refused = reflection.server_reflection_info(requests()).await.expect_err("no token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    reflection.server_reflection_info(authorized(requests(), Some(OPS))).await.expect("reflection");
}

#[tokio::test]
async fn both_versions_of_tls_and_of_http() {
    let guarded = Guarded::start().await;
    let (http, certificate) = (guarded.router.bound.http, guarded.certificate.der());
    for version in [&TLS12, &TLS13] {
        for (offered, chosen) in
            [(&["http/1.1", "h2"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
        {
            let stream = knock(http, &certificate, version, offered).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        }
    }
    let mut stream = knock(http, &certificate, &TLS12, &[]).await.expect("a handshake");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // What the handshake agreed on is spoken: a preface and empty settings are answered by settings.
    let mut stream = knock(http, &certificate, &TLS13, &["h2"]).await.expect("a handshake");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("a frame");
    assert_eq!(head[3], 4, "{head:?}");
    knock(guarded.router.bound.grpc, &certificate, &TLS13, &["http/1.1"]).await.expect_err("gRPC is HTTP/2");
}

#[tokio::test]
async fn a_new_secret_is_taken_under_a_running_stream() {
    let guarded = Guarded::start().await;
    let mut running = guarded.post(CHAT, Some(TEAM), &streamed("banking", "one !gate two")).await;
    let mut text = String::from_utf8(running.chunk().await.expect("a chunk").expect("a chunk").to_vec()).expect("text");

    let next = Certificate::new();
    let changed = tokens().replace(TEAM, "team-fedcba9876543210").replace("bank*", "travel");
    mount(guarded.folder.path(), 1, &next, &changed);
    // The next handshake shows it; only those who trust it get through.
    let renewed = client(&next, guarded.router.bound.http);
    while renewed.get(guarded.url("/healthz")).send().await.is_err() {}
    let get = |token: &'static str| renewed.get(guarded.url("/v1/models/travel")).bearer_auth(token).send();
    assert_eq!(get(TEAM).await.expect("an answer").status(), 401);
    assert_eq!(get("team-fedcba9876543210").await.expect("an answer").status(), 200);
    // Also over a connection from before.
    assert_eq!(guarded.get("/v1/models", Some(TEAM)).await.0, 401);

    guarded.worker.script.gate.send_replace(true);
    while let Some(chunk) = running.chunk().await.expect("unbroken") {
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    assert!(text.contains("two ") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_used_leaves_the_former_in_use() {
    let guarded = Guarded::start().await;
    let (good, other) = (&guarded.certificate, Certificate::new());
    let mismatched = Certificate { pem: good.pem.clone(), key: other.key.clone() };
    mount(guarded.folder.path(), 1, &mismatched, &tokens());
    mount(guarded.folder.path(), 2, good, "- name: team\n  tokn: x\n");
    // What comes after them is taken, and until then the first was in use.
    let (mut asked, later) = (0, tokens().replace(TEAM, "team-fedcba9876543210"));
    loop {
        match guarded.get("/v1/models", Some(TEAM)).await.0 {
            200 if asked == 0 => mount(guarded.folder.path(), 3, good, &later),
            200 => {}
            status => {
                assert_eq!(status, 401);
                break;
            }
        }
        asked += 1;
    }
    assert!(asked > 0);
    assert_eq!(guarded.get("/v1/models", Some("team-fedcba9876543210")).await.0, 200);
}

#[tokio::test]
async fn at_the_start_it_is_an_error_that_names_file_and_reason() {
    let good = Certificate::new();
    let reason = async |certificate: &Certificate, tokens: &str, gone: Option<&str>| {
        let folder = tempfile::tempdir().expect("a folder");
        mount(folder.path(), 0, certificate, tokens);
        if let Some(gone) = gone {
            fs::remove_file(folder.path().join("..data").join(gone)).expect("a file");
        }
        let (_swarm, receiver) = watch::channel(Arc::new(Swarm::default()));
        let (bound, _) = oneshot::channel();
        let config = guarded_config(folder.path());
        slm_router::run(config, receiver, CancellationToken::new(), bound).await.expect_err("unusable").to_string()
    };
    let no_key = Certificate { pem: good.pem.clone(), key: String::new() };
    let foreign = Certificate { pem: good.pem.clone(), key: Certificate::new().key };
    let tokens = tokens();
    let cases = [
        (reason(&good, &tokens, Some("tokens.yaml")).await, "tokens.yaml: No such file"),
        (reason(&good, &tokens, Some("tls.crt")).await, "a folder with tls.crt, tls.key, tokens.yaml"),
        (reason(&no_key, &tokens, None).await, "tls.key: "),
        (reason(&foreign, &tokens, None).await, "tls.crt and tls.key: "),
        (
            reason(&good, &format!("{tokens}  model: [x]\n"), None).await,
            "tokens.yaml line 6: the field `model` is unknown",
        ),
        (
            reason(&good, &format!("{tokens}- name: ops\n  token: {TEAM}2\n"), None).await,
            "tokens.yaml line 6: the name `ops`",
        ),
    ];
    for (said, expected) in cases {
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!said.contains(TEAM), "{said}");
    }
}

#[tokio::test]
async fn bad_handshakes_hold_nobody_up() {
    let guarded = Guarded::start().await;
    for address in [guarded.router.bound.http, guarded.router.bound.grpc] {
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let mut garbage = TcpStream::connect(address).await.expect("a connection");
        garbage.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        let _ = garbage.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "plain text is not spoken");
        let certificate = guarded.certificate.der();
        let handshake = knock(address, &certificate, &TLS13, &["h2"]);
        // Less than the silent ones are given.
        timeout(Duration::from_secs(4), handshake).await.expect("at once").expect("a handshake");
        // They are dropped in the end.
        assert_eq!(silent[0].read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
    assert_eq!(guarded.get("/v1/models", Some(TEAM)).await.0, 200);
}

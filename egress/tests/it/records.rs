//! Records of what left, tokens, and who may ask.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use serde_json::{Value, json};
use slm_egress::{Config, RunError, Secrets, Sink};
use slm_proto::v1::ExternalRequest;

use crate::{
    endpoint::{Endpoint, Script, delta, said},
    harness::{Egress, config, large, question},
};

async fn recorded(path: &Path, content: bool) -> Vec<Value> {
    let endpoint = Endpoint::start([Script::Stream(said(&["fine, ", "[EMAIL_1]"]), 64)]).await;
    let config = Config { audit: Sink::File(path.to_owned()), audit_content: content, ..config() };
    let externals = large(&endpoint.url, &json!({ "price": { "input": 1.0, "output": 1.0 } }));
    let egress = Egress::start(externals, config).await;
    egress.until(|names| names == ["large"]).await;
    egress.ask(ExternalRequest { redact: true, ..question("write to ada@example.com") }).await.expect("an answer");
    loop {
        // The last one is written after the answer has ended.
        let text = fs::read_to_string(path).expect("records");
        if text.lines().count() == 2 {
            return text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_is_recorded_before_and_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let records = recorded(&path, false).await;
    let [sent, ended] = records.as_slice() else { panic!("{records:?}") };
    let expected = [
        ("event", json!("sent")),
        ("request_id", json!("r1")),
        ("caller", json!("team")),
        ("route", json!("assistant")),
        ("reason", json!("no rule matched: fallback")),
        ("external_model", json!("large")),
        ("model", json!("gpt")),
        ("redacted", json!(true)),
    ];
    for (field, value) in expected {
        assert_eq!(sent[field], value, "{sent}");
    }
    assert_eq!(sent["placeholders"].as_object().map(serde_json::Map::len), Some(1), "{sent}");
    assert_eq!((&ended["event"], &ended["outcome"]), (&json!("ended"), &json!("answered")), "{ended}");
    assert_eq!((&ended["prompt_tokens"], &ended["cost"]["currency"]), (&json!(12), &json!("USD")), "{ended}");
    let text = fs::read_to_string(&path).expect("records");
    assert!(!text.contains("ada@") && !text.contains("write to") && !text.contains("fine"), "{text}");
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);

    let with = folder.path().join("content.jsonl");
    let records = recorded(&with, true).await;
    assert!(records[0]["content"].as_str().is_some_and(|sent| sent.contains("write to [EMAIL_1]")), "{records:?}");
    assert_eq!(records[1]["content"], "fine, ada@example.com");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_sent() {
    let endpoint = Endpoint::start([Script::Stream(said(&["ok"]), 64)]).await;
    // Every write to it fails: the disk is full.
    let config = Config { audit: Sink::File("/dev/full".into()), ..config() };
    let egress = Egress::start(large(&endpoint.url, &json!({})), config).await;
    egress.until(|names| names == ["large"]).await;
    let status = egress.ask(question("hello")).await.expect_err("nothing is sent");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
    assert!(status.message().starts_with("nothing was sent"), "{status:?}");
    assert!(endpoint.asked().is_empty());
}

#[tokio::test]
async fn a_file_that_cannot_be_written_ends_it() {
    let config = Config { audit: Sink::File("/proc/nothing/audit".into()), ..config() };
    let (_externals, receiver) = tokio::sync::watch::channel(std::sync::Arc::default());
    let (bound, _) = tokio::sync::oneshot::channel();
    let outcome = slm_egress::run(config, receiver, tokio_util::sync::CancellationToken::new(), bound).await;
    assert!(matches!(outcome, Err(RunError::Audit(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_token_goes_where_its_secret_says_and_follows_its_file() {
    let endpoint = Endpoint::start([Script::Stream(said(&["ok"]), 64)]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets.yaml");
    let host = endpoint.url.trim_start_matches("http://").trim_end_matches("/v1");
    let secret = |hosts: &str| {
        format!(
            "kind: Secret\napiVersion: v1\nmetadata:\n  name: key\n  annotations:\n    slmswarm.io/hosts: {hosts}\nstringData:\n  token: tok-1\n"
        )
    };
    fs::write(&path, secret("api.example.com")).expect("a file");
    let config = Config { secrets: Secrets::File(path.clone()), ..config() };
    let mut externals = large(&endpoint.url, &json!({ "secretRef": { "name": "key" } }));
    let egress = Egress::start(externals.clone(), config).await;
    let status = loop {
        let status = egress.ask(question("hello")).await.expect_err("another host");
        if status.code() != tonic::Code::NotFound {
            break status;
        }
    };
    assert!(status.message().contains(&format!("slmswarm.io/hosts: http://{host}")), "{status:?}");
    assert!(!status.message().contains("tok-1"), "{status:?}");
    fs::write(&path, secret(&format!("http://{host}"))).expect("a file");
    // A snapshot is a reason to read it again.
    externals.generation += 1;
    egress.externals.send_replace(std::sync::Arc::new(externals));
    egress.until(|names| names == ["large"]).await;
    egress.ask(question("hello")).await.expect("an answer");
    assert_eq!(endpoint.asked()[0].authorization.as_deref(), Some("Bearer tok-1"));
}

#[tokio::test]
async fn it_drains() {
    let endpoint = Endpoint::start([Script::Stream(said(&["ok"]), 64)]).await;
    let egress = Egress::of(&endpoint.url, json!({})).await;
    let mut states = egress.states().await;
    let Egress { ended, stop, .. } = egress;
    drop(stop);
    let mut last = None;
    while let Some(state) = states.message().await.expect("states") {
        last = Some(state.draining);
    }
    assert_eq!(last, Some(true));
    ended.await.expect("no panic").expect("it drained");
}

/// An answer may come in one piece with its end: what it says is recorded all the same.
#[tokio::test]
async fn an_answer_in_one_piece_is_recorded_whole() {
    let whole = json!({ "choices": [{ "index": 0, "message": { "content": "fine" }, "finish_reason": "stop" }] });
    let whole = Script::Status(200, vec![("content-type", "application/json")], whole.to_string());
    for script in [Script::Stream(said(&["fine"]), 4096), whole] {
        let endpoint = Endpoint::start([script]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let config = Config { audit: Sink::File(path.clone()), audit_content: true, ..config() };
        let egress = Egress::start(large(&endpoint.url, &json!({})), config).await;
        egress.until(|names| names == ["large"]).await;
        egress.ask(question("hello")).await.expect("an answer");
        let Egress { ended, stop, .. } = egress;
        drop(stop);
        ended.await.expect("no panic").expect("it drained");
        // An egress that has ended has written what it had to.
        let text = fs::read_to_string(&path).expect("records");
        let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let [_, ended] = records.as_slice() else { panic!("{text}") };
        assert_eq!((&ended["content"], &ended["bytes"]), (&json!("fine"), &json!(4)), "{ended}");
    }
}

/// A collector that has moved does not have the record: a redirect would turn it into a mere look at another page.
#[tokio::test]
async fn a_collector_that_redirects_has_no_record() {
    let app = axum::Router::new()
        .route("/v1/logs", axum::routing::post(async || (axum::http::StatusCode::FOUND, [("location", "/welcome")])))
        .route("/welcome", axum::routing::get(async || "hello"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let collector = format!("http://{}", listener.local_addr().expect("an address"));
    let _serving =
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, app).await }));
    let endpoint = Endpoint::start([Script::Stream(said(&["ok"]), 64)]).await;
    let egress =
        Egress::start(large(&endpoint.url, &json!({})), Config { audit: Sink::Otlp(collector), ..config() }).await;
    egress.until(|names| names == ["large"]).await;
    let status = egress.ask(question("hello")).await.expect_err("nothing is sent");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
    assert!(endpoint.asked().is_empty());
}

/// An answer that does not end within the drain ends with it, and its record is written.
#[tokio::test]
async fn what_a_drain_cuts_off_is_recorded() {
    let endpoint = Endpoint::start([Script::Hang(vec![delta(json!({ "content": "half" }))])]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let config = Config { audit: Sink::File(path.clone()), drain: Duration::from_millis(1), ..config() };
    let egress = Egress::start(large(&endpoint.url, &json!({})), config).await;
    egress.until(|names| names == ["large"]).await;
    let mut answer = egress.client.clone().generate(question("hello")).await.expect("an answer").into_inner();
    let Egress { ended, stop, .. } = egress;
    answer.message().await.expect("started").expect("started");
    drop(stop);
    let status = loop {
        if let Err(status) = answer.message().await {
            break status;
        }
    };
    assert_eq!(
        (status.code(), status.message().contains("shutting down")),
        (tonic::Code::Unavailable, true),
        "{status:?}"
    );
    ended.await.expect("no panic").expect("it ended");
    let text = fs::read_to_string(&path).expect("records");
    let last: Value = serde_json::from_str(text.lines().last().expect("a record")).expect("JSON");
    assert_eq!((&last["event"], &last["outcome"]), (&json!("ended"), &json!("cancelled")), "{last}");
}

/// A file of Secrets that cannot be read for a moment takes no token away.
#[tokio::test]
async fn a_token_stays_while_its_secret_cannot_be_read() {
    let endpoint = Endpoint::start([Script::Stream(said(&["ok"]), 64)]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets.yaml");
    let host = endpoint.url.trim_start_matches("http://").trim_end_matches("/v1");
    let secret = format!(
        "kind: Secret\napiVersion: v1\nmetadata: {{name: key, annotations: {{slmswarm.io/hosts: 'http://{host}'}}}}\nstringData: {{token: tok-1}}\n"
    );
    fs::write(&path, secret).expect("a file");
    let config = Config { secrets: Secrets::File(path.clone()), ..config() };
    let mut externals = large(&endpoint.url, &json!({ "secretRef": { "name": "key" } }));
    let egress = Egress::start(externals.clone(), config).await;
    egress.until(|names| names == ["large"]).await;
    fs::remove_file(&path).expect("a file");
    // A snapshot is a reason to read it again; its second model shows that it was.
    let mut other = externals.externals[0].clone();
    (other.name, other.spec.secret_ref) = ("other".to_owned(), None);
    externals.externals.push(other);
    egress.externals.send_replace(std::sync::Arc::new(externals));
    egress.until(|names| names.contains(&"other".to_owned())).await;
    egress.ask(question("hello")).await.expect("an answer");
    assert_eq!(endpoint.asked()[0].authorization.as_deref(), Some("Bearer tok-1"));
}

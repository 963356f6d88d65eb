//! Requests that cannot be answered, over HTTP and gRPC, and callers that go away.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures::StreamExt as _;
use serde_json::{Value, json};
use slm_tests::swarm::{Call, Client, Folder, Shared, Swarm, worker_state, worker_state_until};
use tonic::Code;

/// A swarm with its manifests.
pub(super) struct Running {
    pub(super) swarm: Swarm,
    _folder: Folder,
}

static RUNNING: Shared<Running> = Shared::new();

/// Room for two sequences, so that one that was not let go of is missed.
pub(super) fn running() -> Result<Arc<Running>> {
    RUNNING.get(|| {
        let folder = Folder::quickstart("precision: F32, maxSequences: 2, contextLength: 4096")?;
        let swarm = Swarm::start(folder.path())?;
        Ok(Running { swarm, _folder: folder })
    })
}

/// A chat request as a body, changed in some fields.
pub(super) fn chat(change: Value) -> Value {
    let mut body = json!({
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "temperature": 0,
        "max_tokens": 8,
    });
    if let (Some(body), Value::Object(change)) = (body.as_object_mut(), change) {
        body.extend(change);
    }
    body
}

impl Running {
    /// One a test: a channel ends with the runtime of the test that opened it.
    pub(super) fn client(&self) -> Result<Client> {
        self.swarm.client()
    }

    pub(super) async fn post(&self, body: impl Into<reqwest::Body>) -> Result<reqwest::Response> {
        let request = reqwest::Client::new().post(format!("{}/v1/chat/completions", self.swarm.http));
        Ok(request.header("content-type", "application/json").body(body).send().await?)
    }

    /// The status and the error of a request that is refused.
    pub(super) async fn refusal(&self, body: impl Into<reqwest::Body>) -> Result<(u16, Value)> {
        let response = self.post(body).await?;
        let status = response.status().as_u16();
        let body: Value = response.json().await?;
        let error = body["error"].clone();
        assert!(error["message"].is_string() && error["type"].is_string(), "{body}");
        assert!(error.get("param").is_some() && error.get("code").is_some(), "{body}");
        Ok((status, error))
    }
}

pub(super) fn says(error: &Value, parts: &[&str]) {
    let message = error["message"].as_str().unwrap_or_default();
    assert!(parts.iter().all(|part| message.contains(part)), "expected {parts:?} in {message:?}");
}

#[tokio::test]
async fn a_name_that_does_not_exist() -> Result<()> {
    let running = running()?;
    let (status, error) = running.refusal(chat(json!({"model": "kitchn"})).to_string()).await?;
    says(&error, &["`kitchn`", "`kitchen`"]);
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
    let refused = running.client()?.refusal(Call::new("kitchn", "soup").request()).await?;
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("`kitchen`"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_prompt_longer_than_the_context() -> Result<()> {
    let running = running()?;
    let long = "very ".repeat(5000);
    let messages = json!([{"role": "user", "content": long}]);
    let (status, error) = running.refusal(chat(json!({ "messages": messages })).to_string()).await?;
    says(&error, &["tokens", "context", "4096"]);
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
    let refused = running.client()?.refusal(Call::new("banking", &long).request()).await?;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("4096"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn an_answer_of_no_tokens() -> Result<()> {
    let running = running()?;
    let (status, error) = running.refusal(chat(json!({"max_tokens": 0})).to_string()).await?;
    says(&error, &["max_tokens is 0", "at least 1"]);
    assert_eq!((status, &error["param"]), (400, &json!("max_tokens")));
    let refused = running.client()?.refusal(Call { max_tokens: 0, ..Call::new("smollm2", "hi") }.request()).await?;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("max_tokens is 0"), "{refused:?}");
    Ok(())
}

/// Refusals name the field as the caller wrote it, whichever side of the worker found it.
#[tokio::test]
async fn fields_have_the_callers_names() -> Result<()> {
    let running = running()?;
    let cases = [
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"max_completion_tokens": 0, "max_tokens": null}), "max_completion_tokens"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"temperature": 2.5}), "temperature"),
    ];
    for (change, param) in cases {
        let (status, error) = running.refusal(chat(change).to_string()).await?;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.starts_with(param)), "{error}");
    }
    let completions = format!("{}/v1/completions", running.swarm.http);
    for (prompt, param) in [(json!([1, 999_999]), "prompt[1]"), (json!([[1], [999_999]]), "prompt[1][0]")] {
        let body = json!({"model": "smollm2", "prompt": prompt, "max_tokens": 1}).to_string();
        let answer = reqwest::Client::new().post(&completions).body(body).send().await?;
        let error = answer.json::<Value>().await?["error"].clone();
        assert_eq!(error["param"], param, "{error}");
    }
    Ok(())
}

/// A caller's words end no turn: they take more tokens than the one that they look like.
#[tokio::test]
async fn control_tokens_in_a_message_are_text() -> Result<()> {
    let running = running()?;
    let tokens = async |content: &str, change: Value| {
        let mut body = chat(change);
        body["messages"] = json!([{"role": "user", "content": content}]);
        body["max_tokens"] = json!(1);
        let answer: Value = running.post(body.to_string()).await?.json().await?;
        answer["usage"]["prompt_tokens"].as_i64().with_context(|| answer.to_string())
    };
    let plain = tokens("a", json!({})).await?;
    assert!(tokens("a<|im_end|>", json!({})).await? - plain > 1);
    assert_eq!(tokens("a<|im_end|>", json!({"parse_special_tokens": true})).await? - plain, 1);
    Ok(())
}

/// A page of this machine may call, one under another name may not, and its preflight needs no token.
#[tokio::test]
async fn pages_of_this_machine_and_of_others() -> Result<()> {
    let running = running()?;
    let client = reqwest::Client::new();
    let url = format!("{}/v1/chat/completions", running.swarm.http);
    let preflight = async |origin: &str| {
        let request = client.request(reqwest::Method::OPTIONS, &url).header("origin", origin);
        let answer = request.header("access-control-request-method", "POST").send().await?;
        anyhow::Ok(answer.headers().get("access-control-allow-origin").cloned())
    };
    assert_eq!(preflight("http://localhost:3000").await?.context("no origin")?, "http://localhost:3000");
    assert_eq!(preflight("https://evil.example").await?, None);
    let foreign = client.get(format!("{}/v1/models", running.swarm.http)).header("host", "evil.example").send().await?;
    assert_eq!(foreign.status().as_u16(), 403);
    assert_eq!(foreign.json::<Value>().await?["error"]["code"], "host_not_allowed");
    Ok(())
}

#[tokio::test]
async fn a_body_over_the_limit() -> Result<()> {
    let running = running()?;
    let limit = 4usize << 20;
    let messages = json!([{"role": "user", "content": "x".repeat(limit)}]);
    let (status, error) = running.refusal(chat(json!({ "messages": messages })).to_string()).await?;
    says(&error, &[&limit.to_string(), "bytes"]);
    assert_eq!((status, &error["type"]), (413, &json!("invalid_request_error")));
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_not_text() -> Result<()> {
    let running = running()?;
    let (status, error) = running.refusal(&b"{\"model\": \"smollm2\", \"prompt\": \"\xff\xfe\"}"[..]).await?;
    says(&error, &["not UTF-8", "byte 32"]);
    assert_eq!(status, 400);
    let (status, error) = running.refusal("{\"model\": \"smollm2\",").await?;
    says(&error, &["not JSON"]);
    assert_eq!(status, 400);
    Ok(())
}

/// The slot of a caller that hangs up is free at once, though its answer had thousands of tokens to go.
#[tokio::test]
async fn a_caller_that_hangs_up() -> Result<()> {
    let running = running()?;
    let worker = running.client()?.worker_of("smollm2").await?;
    let endless = json!({"stream": true, "max_tokens": 3500, "ignore_eos": true});
    for _ in 0..3 {
        let mut events = running.post(chat(endless.clone()).to_string()).await?.bytes_stream();
        events.next().await.context("no first event")??;
        let mut stream = running.client()?.stream(Call::long("banking", "Tell me a story.", 3500).request()).await?;
        stream.next().await?.context("no first token")?;
        // Both slots are taken now: the next round runs only because these let go of them.
        worker_state_until(&worker, |state| state.sequences_running == 2).await?;
        drop(events);
        drop(stream);
        worker_state_until(&worker, |state| state.sequences_running == 0 && state.requests_waiting == 0).await?;
    }
    let state = worker_state(&worker).await?;
    assert_eq!((state.kv_tokens_used, state.tokens_queued), (0, 0), "{state:?}");
    assert!(state.adapters.iter().all(|adapter| adapter.active_requests == 0), "{state:?}");
    Ok(())
}

#[tokio::test]
async fn constraints_that_cannot_be_kept() -> Result<()> {
    let running = running()?;
    let strict = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}});
    let at = "response_format.json_schema.schema";
    for (change, param, parts) in [
        (strict(json!({"$ref": "https://example.com/s.json"})), at, [&*format!("{at} at /$ref"), "is not fetched"]),
        (strict(json!({"not": {}})), at, ["at /not", "`not` is not supported"]),
        (json!({"guided_json": {"$ref": "#"}}), "guided_json", ["guided_json at /$ref", "without end"]),
        (json!({"guided_regex": "(a"}), "guided_regex", ["guided_regex cannot be used", ""]),
        (json!({"structured_outputs": {"choice": []}}), "structured_outputs.choice", ["is empty", "send strings"]),
        (
            json!({"guided_choice": ["a"], "response_format": {"type": "json_object"}}),
            "guided_choice",
            ["`response_format` and `guided_choice`", "one constraint at most"],
        ),
        (json!({"logit_bias": {"7": 101}}), "logit_bias", ["logit_bias is 101", "between -100 and 100"]),
    ] {
        let (status, error) = running.refusal(chat(change).to_string()).await?;
        says(&error, &parts);
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
    Ok(())
}

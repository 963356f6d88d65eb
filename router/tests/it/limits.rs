//! Limits of tokens: what callers get beyond them, and what they are told before.

use serde_json::{Value, json};
use slm_proto::v1::{GenerateRequest, generate_request::Input, generation_client::GenerationClient};
use tonic::Code;

use crate::{
    guarded::{Guarded, OPS, TEAM, authorized, tokens},
    harness::chat,
};

const CHAT: &str = "/v1/chat/completions";

/// A router whose token `team` has these limits.
async fn limited(limits: &str) -> Guarded {
    Guarded::with(&format!("{}  limits: {limits}\n", tokens())).await
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

#[tokio::test]
async fn requests_of_a_minute() {
    let guarded = limited("{requestsPerMinute: 2}").await;
    for left in ["1", "0"] {
        let response = guarded.post(CHAT, Some(TEAM), &chat("banking", "hi")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-ratelimit-limit-requests").as_deref(), Some("2"));
        assert_eq!(header(&response, "x-ratelimit-remaining-requests").as_deref(), Some(left));
        assert!(header(&response, "x-ratelimit-limit-tokens").is_none());
    }
    let refused = guarded.post(CHAT, Some(TEAM), &chat("banking", "hi")).await;
    assert_eq!(refused.status(), 429);
    let seconds: u64 = header(&refused, "retry-after").and_then(|text| text.parse().ok()).expect("a number");
    assert!((1..=30).contains(&seconds), "{seconds}");
    assert_eq!(header(&refused, "x-ratelimit-remaining-requests").as_deref(), Some("0"));
    assert!(header(&refused, "x-ratelimit-reset-requests").is_some());
    let error: Value = refused.json().await.expect("JSON");
    assert_eq!(
        (&error["error"]["code"], &error["error"]["type"]),
        (&json!("rate_limit_exceeded"), &json!("rate_limit_error"))
    );
    let message = error["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("the token `team` may make 2 requests a minute; try again in "), "{message}");
    assert_eq!(guarded.worker.asked(), 2);

    let prompt = GenerateRequest {
        model: "banking".to_owned(),
        input: Some(Input::Prompt("hi".to_owned())),
        ..GenerateRequest::default()
    };
    let mut grpc = GenerationClient::new(guarded.grpc().await);
    let status = grpc.complete(authorized(prompt.clone(), Some(TEAM))).await.expect_err("beyond the limit");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(!status.details().is_empty(), "a RetryInfo");
    grpc.complete(authorized(prompt, Some(OPS))).await.expect("a token without limits");
    let response = guarded.post(CHAT, Some(OPS), &chat("banking", "hi")).await;
    assert!(header(&response, "x-ratelimit-limit-requests").is_none());
}

#[tokio::test]
async fn tokens_of_a_minute_are_those_that_were_used() {
    let guarded = limited("{tokensPerMinute: 10000}").await;
    let mut body = chat("banking", "hi");
    body["max_tokens"] = json!(9_000);
    let response = guarded.post(CHAT, Some(TEAM), &body).await;
    let answer: Value = response.json().await.expect("JSON");
    let used = answer["usage"]["total_tokens"].as_u64().expect("a number");
    let after = guarded.router.client.get(guarded.url("/v1/models")).bearer_auth(TEAM).send().await.expect("an answer");
    let left: u64 =
        header(&after, "x-ratelimit-remaining-tokens").and_then(|text| text.parse().ok()).expect("a number");
    // Some have come back meanwhile.
    assert!(left >= 10_000 - used - 1, "{left} left of 10000 after {used}");
    assert_eq!(header(&after, "x-ratelimit-limit-tokens").as_deref(), Some("10000"));
}

#[tokio::test]
async fn answers_are_as_long_as_the_token_allows() {
    let guarded = limited("{maxTokens: 7}\n  modelLimits: {bank*: {maxTokens: 5}}").await;
    let mut body = chat("banking", "hi");
    body["max_tokens"] = json!(6);
    let refused = guarded.post(CHAT, Some(TEAM), &body).await;
    assert_eq!(refused.status(), 400);
    let error: Value = refused.json().await.expect("JSON");
    assert_eq!(error["error"]["param"], "max_tokens");
    let message = "max_tokens is 6; requests with the token `team` to `banking` may ask for 5 at most";
    assert_eq!(error["error"]["message"], message);
    assert_eq!(guarded.worker.asked(), 0);
    let response = guarded.post(CHAT, Some(TEAM), &chat("banking", "hi")).await;
    assert_eq!(response.status(), 200);
    let asked = guarded.worker.script.requests.lock().expect("no panic").last().map(|(request, _)| request.max_tokens);
    assert_eq!(asked, Some(Some(5)), "the longest answer that the token allows");
}

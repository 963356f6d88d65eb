//! Requests and answers as they should be.

use serde_json::json;
use slm_proto::v1::{ExpertKind, FinishReason, Sampling, Tool, sampling::Constraint};

use crate::{
    endpoint::{Endpoint, Script, delta, end, said},
    harness::{Egress, question},
};

/// What a request asks beyond OpenAI's API.
type Change = fn(&mut slm_proto::v1::GenerateRequest);

#[tokio::test]
async fn an_answer_streams_through_with_usage_and_cost() {
    // Cut at every byte, characters included.
    for piece in [1, 7, 4096] {
        let endpoint = Endpoint::start([Script::Stream(said(&["Grüß ", "dich", "."]), piece)]).await;
        let egress =
            Egress::of(&endpoint.url, json!({ "price": { "input": 1.0, "output": 10.0, "currency": "EUR" } })).await;
        let answer = egress.ask(question("hello")).await.expect("an answer");
        assert_eq!((answer.text.as_str(), answer.reason()), ("Grüß dich.", FinishReason::Stop));
        let expert = answer.started.and_then(|started| started.expert).expect("an expert");
        assert_eq!(
            (expert.kind(), expert.name.as_str(), expert.model.as_str()),
            (ExpertKind::ExternalModel, "large", "gpt")
        );
        let usage = answer.usage.expect("usage");
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (12, 7));
        let cost = answer.cost.expect("a cost");
        assert!((cost.amount - 82e-6).abs() < 1e-12 && cost.currency == "EUR", "{cost:?}");
        let asked = endpoint.asked().remove(0);
        assert_eq!(asked.authorization, None);
        assert_eq!(
            asked.body,
            json!({ "model": "gpt", "messages": [{ "role": "user", "content": "hello" }], "stream": true,
                    "stream_options": { "include_usage": true } })
        );
        let metrics = egress.metrics().await;
        for line in [
            "slm_egress_requests_total{model=\"large\",outcome=\"answered\"} 1",
            "slm_egress_tokens_total{model=\"large\",kind=\"prompt\"} 12",
            "slm_egress_cost_total{model=\"large\",currency=\"EUR\"} 0.000082",
        ] {
            assert!(metrics.contains(line), "{line}\n{metrics}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_taken_too() {
    let body = json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": "whole" }, "finish_reason": "length" }],
                       "usage": { "prompt_tokens": 3, "completion_tokens": 1 } });
    let endpoint =
        Endpoint::start([Script::Status(200, vec![("content-type", "application/json")], body.to_string())]).await;
    let answer = Egress::of(&endpoint.url, json!({})).await.ask(question("hello")).await.expect("an answer");
    assert_eq!((answer.text.as_str(), answer.reason()), ("whole", FinishReason::Length));
}

#[tokio::test]
async fn what_openai_has_a_word_for_is_said_and_the_rest_is_refused() {
    let endpoint = Endpoint::start([Script::Stream(said(&["ok"]), 64)]).await;
    let egress = Egress::of(&endpoint.url, json!({})).await;
    let mut asked = question("hello");
    let request = asked.request.as_mut().expect("a request");
    request.max_tokens = Some(5);
    request.stop = vec!["END".to_owned()];
    request.logprobs = Some(2);
    request.parallel_tool_calls = Some(false);
    request.tools = vec![Tool {
        name: "now".to_owned(),
        parameters: r#"{"type":"object"}"#.to_owned(),
        strict: true,
        ..Tool::default()
    }];
    request.sampling = Some(Sampling {
        temperature: Some(0.7),
        top_p: Some(0.9),
        seed: Some(7),
        top_k: Some(0),
        constraint: Some(Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned())),
        ..Sampling::default()
    });
    egress.ask(asked.clone()).await.expect("an answer");
    let body = endpoint.asked().remove(0).body;
    for (field, value) in [
        ("max_completion_tokens", json!(5)),
        ("stop", json!(["END"])),
        ("temperature", json!(0.7)),
        ("top_p", json!(0.9)),
        ("seed", json!(7)),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(2)),
        ("parallel_tool_calls", json!(false)),
        (
            "tools",
            json!([{ "type": "function", "function": { "name": "now", "parameters": { "type": "object" }, "strict": true } }]),
        ),
        (
            "response_format",
            json!({ "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": { "type": "object" } } }),
        ),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
    let change: [(&str, Change); 5] = [
        ("regex", |it| it.sampling.as_mut().unwrap().constraint = Some(Constraint::Regex("a".to_owned()))),
        ("top_k", |it| it.sampling.as_mut().unwrap().top_k = Some(3)),
        ("stop_token_ids", |it| it.stop_token_ids = vec![1]),
        ("echo", |it| it.echo = true),
        ("messages", |it| it.input = Some(slm_proto::v1::generate_request::Input::Prompt("a".to_owned()))),
    ];
    for (field, change) in change {
        let mut refused = asked.clone();
        change(refused.request.as_mut().expect("a request"));
        let status = egress.ask(refused).await.expect_err(field);
        assert_eq!(
            (status.code(), status.message().starts_with(field)),
            (tonic::Code::InvalidArgument, true),
            "{status:?}"
        );
        assert_eq!(status.metadata().get("slm-error-field").map(|field| field.to_str().unwrap()), Some(field));
    }
    assert_eq!(endpoint.asked().len(), 1);
}

/// What the endpoint sees has nothing personal in it, and what the caller reads has all of it, however the answer is cut.
#[tokio::test]
async fn redaction_goes_out_and_comes_back() {
    let call =
        |arguments: &str| delta(json!({ "tool_calls": [{ "index": 0, "function": { "arguments": arguments } }] }));
    let mut events = vec![
        delta(json!({ "content": "I write to [EMAIL" })),
        delta(json!({ "content": "_1] about [CARD_1]." })),
        delta(json!({ "tool_calls": [{ "index": 0, "id": "c1", "function": { "name": "send", "arguments": "" } }] })),
        call("{\"to\": \"[EMA"),
        call("IL_1]\"}"),
    ];
    events.extend(end("tool_calls"));
    for piece in [1, 3, 4096] {
        let endpoint = Endpoint::start([Script::Stream(events.clone(), piece)]).await;
        let egress = Egress::of(&endpoint.url, json!({})).await;
        let text = "Mail ada@example.com that card 4111 1111 1111 1111 is blocked.";
        let answer =
            egress.ask(slm_proto::v1::ExternalRequest { redact: true, ..question(text) }).await.expect("an answer");
        let left = endpoint.asked().remove(0).body.to_string();
        assert!(!left.contains("ada@") && !left.contains("4111") && left.contains("[EMAIL_1]"), "{left}");
        assert_eq!(answer.text, "I write to ada@example.com about 4111 1111 1111 1111.");
        let calls: Vec<_> = answer.tool_calls.iter().map(|call| (&*call.id, &*call.name, &*call.arguments)).collect();
        assert_eq!(calls, [("c1", "send", "{\"to\": \"ada@example.com\"}")]);
        assert_eq!(answer.reason(), FinishReason::ToolCalls);
    }
}

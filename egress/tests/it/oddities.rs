//! What endpoints say that OpenAI's does not.

use serde_json::{Value, json};
use slm_proto::v1::{Completion, FinishReason};

use crate::{
    endpoint::{Endpoint, Script, delta, end},
    harness::{Egress, question},
};

async fn answer(events: Vec<String>) -> Completion {
    let endpoint = Endpoint::start([Script::Stream(events, 4096)]).await;
    let egress = Egress::of(&endpoint.url, json!({ "price": { "input": 1.0, "output": 1.0 } })).await;
    egress.ask(question("hello")).await.expect("an answer")
}

fn part(call: Value) -> String {
    delta(json!({ "tool_calls": [call] }))
}

fn calls(answer: &Completion) -> Vec<(&str, &str, &str)> {
    answer.tool_calls.iter().map(|call| (&*call.id, &*call.name, &*call.arguments)).collect()
}

/// Some write both names of what a model thinks, with the same text.
#[tokio::test]
async fn thoughts_under_both_names_are_thought_once() {
    let mut events = vec![delta(json!({ "reasoning": "hm", "reasoning_content": "hm", "content": "" }))];
    events.push(delta(json!({ "reasoning": null, "reasoning_content": null, "content": "yes" })));
    events.extend(end("stop"));
    let answer = answer(events).await;
    assert_eq!((answer.reasoning.as_str(), answer.text.as_str()), ("hm", "yes"));
}

/// Calls are numbered from 0, from 1, all 0, or not at all.
#[tokio::test]
async fn calls_are_told_apart_however_they_are_numbered() {
    let begin = |index: Option<u32>, id: &str, name: &str| {
        part(json!({ "index": index, "id": id, "function": { "name": name, "arguments": "{\"a\"" } }))
    };
    let more = |index: Option<u32>| part(json!({ "index": index, "function": { "arguments": ":1}" } }));
    for (one, two) in [(Some(0), Some(1)), (Some(1), Some(2)), (Some(0), Some(0)), (None, None)] {
        let mut events = vec![begin(one, "x", "f"), more(one), begin(two, "y", "g"), more(two)];
        events.extend(end("tool_calls"));
        let answer = answer(events).await;
        assert_eq!(calls(&answer), [("x", "f", "{\"a\":1}"), ("y", "g", "{\"a\":1}")], "{one:?} {two:?}");
    }
}

/// OpenAI itself says `stop` where the request named the tool.
#[tokio::test]
async fn an_answer_that_calls_ends_for_its_calls() {
    let mut events = vec![part(json!({ "index": 0, "id": "x", "function": { "name": "f", "arguments": "{}" } }))];
    events.extend(end("stop"));
    assert_eq!(answer(events).await.reason(), FinishReason::ToolCalls);
}

#[tokio::test]
async fn done_is_an_end_without_a_reason() {
    let answer = answer(vec![delta(json!({ "content": "yes" })), "[DONE]".to_owned()]).await;
    assert_eq!((answer.text.as_str(), answer.reason()), ("yes", FinishReason::Stop));
    // Nothing was counted: that is no price of nothing.
    assert_eq!((answer.usage, answer.cost), (None, None));
}

#[tokio::test]
async fn fields_that_are_null_are_fields_that_are_absent() {
    let token = json!({ "token": "a", "logprob": -0.5, "bytes": null, "top_logprobs": null });
    let said = json!({ "choices": [{ "index": 0, "delta": { "content": "a", "tool_calls": null }, "logprobs": { "content": [token] } }],
                       "usage": null, "error": null });
    let mut events = vec![said.to_string(), json!({ "choices": null, "usage": null }).to_string()];
    events.extend(end("stop"));
    let answer = answer(events).await;
    assert_eq!((answer.text.as_str(), answer.logprobs.len()), ("a", 1));
}

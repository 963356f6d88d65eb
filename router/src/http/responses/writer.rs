//! The items of an answer and the events that tell of them, as the answer comes.
//!
//! A whole response is the last event's `response`: what a stream says and what a whole answer says cannot differ.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use slm_proto::v1::{Delta, FinishReason, Finished, TokenLogprob, ToolCallDelta, Usage};

use crate::http::{
    error::ApiError,
    logprobs::{self, TokenNames},
};

/// The state of one response.
pub(super) struct Writer {
    id: String,
    model: String,
    created_at: u64,
    echo: Map<String, Value>,
    logprobs: Option<TokenNames>,
    /// Items that are whole.
    output: Vec<Value>,
    open: Option<Open>,
    sequence: u64,
}

/// The item that is being written.
struct Open {
    id: String,
    kind: Kind,
    /// Text, thoughts or arguments so far.
    text: String,
    logprobs: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
    /// The call with this index.
    Call {
        index: u32,
        call_id: String,
        name: String,
    },
}

impl Writer {
    pub(super) fn new(model: String, echo: Map<String, Value>, logprobs: Option<TokenNames>) -> Self {
        Self {
            id: id("resp"),
            model,
            created_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            echo,
            logprobs,
            output: Vec::new(),
            open: None,
            sequence: 0,
        }
    }

    /// The first events.
    pub(super) fn opening(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        for kind in ["response.created", "response.in_progress"] {
            let response = self.response("in_progress", None);
            self.push(&mut events, kind, json!({ "response": response }));
        }
        events
    }

    /// The events of a part of the answer.
    pub(super) fn delta(&mut self, delta: Delta) -> Vec<Value> {
        let mut events = Vec::new();
        if !delta.reasoning.is_empty() {
            self.turn_to(Kind::Reasoning, &mut events);
            self.grow(&delta.reasoning, &[], &mut events);
        }
        if !delta.text.is_empty() || (!delta.logprobs.is_empty() && self.is_open(&Kind::Message)) {
            self.turn_to(Kind::Message, &mut events);
            self.grow(&delta.text, &delta.logprobs, &mut events);
        }
        for part in delta.tool_calls {
            self.call(part, &mut events);
        }
        events
    }

    /// The last events.
    pub(super) fn finish(&mut self, finished: &Finished) -> Vec<Value> {
        let mut events = Vec::new();
        if self.output.is_empty() && self.open.is_none() {
            // An answer without a word is a message all the same.
            self.turn_to(Kind::Message, &mut events);
        }
        let too_long = finished.reason() == FinishReason::Length;
        // A stop string ends an answer, and cuts a call.
        let in_call = self.open.as_ref().is_some_and(|open| matches!(open.kind, Kind::Call { .. }));
        let cut = too_long || (in_call && finished.reason() != FinishReason::ToolCalls);
        let status = if cut { "incomplete" } else { "completed" };
        self.close(status, &mut events);
        let mut response = self.response(status, finished.usage);
        if cut {
            response["incomplete_details"] = json!({ "reason": too_long.then_some("max_output_tokens") });
        }
        self.push(&mut events, &format!("response.{status}"), json!({ "response": response }));
        events
    }

    /// The last event of an answer that failed.
    pub(super) fn fail(&mut self, error: &ApiError) -> Vec<Value> {
        let mut events = Vec::new();
        let mut response = self.response("failed", None);
        let code = error.body.code.as_deref().unwrap_or("server_error");
        response["error"] = json!({ "code": code, "message": error.body.message });
        self.push(&mut events, "response.failed", json!({ "response": response }));
        events
    }

    fn call(&mut self, part: ToolCallDelta, events: &mut Vec<Value>) {
        let same = |open: &Open| matches!(open.kind, Kind::Call { index, .. } if index == part.index);
        if !self.open.as_ref().is_some_and(same) {
            self.turn_to(Kind::Call { index: part.index, call_id: part.id, name: part.name }, events);
        }
        if !part.arguments.is_empty() {
            self.grow(&part.arguments, &[], events);
        }
    }

    fn is_open(&self, kind: &Kind) -> bool {
        self.open.as_ref().is_some_and(|open| open.kind == *kind)
    }

    /// Ends the open item if it is another, and begins this one.
    fn turn_to(&mut self, kind: Kind, events: &mut Vec<Value>) {
        if self.is_open(&kind) {
            return;
        }
        self.close("completed", events);
        let open = Open { id: id(kind.prefix()), kind, text: String::new(), logprobs: Vec::new() };
        let (index, item_id) = (self.output.len(), open.id.clone());
        let item = open.begun();
        self.push(events, "response.output_item.added", json!({ "output_index": index, "item": item }));
        if open.kind.has_parts() {
            let part = open.part();
            let place = json!({ "item_id": item_id, "output_index": index, "content_index": 0, "part": part });
            self.push(events, "response.content_part.added", place);
        }
        self.open = Some(open);
    }

    fn grow(&mut self, text: &str, tokens: &[TokenLogprob], events: &mut Vec<Value>) {
        let index = self.output.len();
        let names = self.logprobs;
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let mut event = json!({ "item_id": open.id, "output_index": index, "delta": text });
        if open.kind.has_parts() {
            event["content_index"] = 0.into();
        }
        if open.kind == Kind::Message {
            let tokens = names.map(|names| logprobs::list(tokens, names)).unwrap_or_default();
            event["logprobs"] = tokens.clone().into();
            open.logprobs.extend(tokens);
        }
        let kind = format!("response.{}.delta", open.kind.event());
        self.push(events, &kind, event);
    }

    /// Ends the open item.
    fn close(&mut self, status: &str, events: &mut Vec<Value>) {
        let Some(open) = self.open.take() else { return };
        let index = self.output.len();
        let place = || json!({ "item_id": open.id, "output_index": index });
        let mut done = place();
        match &open.kind {
            Kind::Call { name, .. } => {
                done["name"] = name.clone().into();
                done["arguments"] = open.text.clone().into();
            }
            Kind::Message => {
                done["content_index"] = 0.into();
                done["text"] = open.text.clone().into();
                done["logprobs"] = open.logprobs.clone().into();
            }
            Kind::Reasoning => {
                done["content_index"] = 0.into();
                done["text"] = open.text.clone().into();
            }
        }
        self.push(events, &format!("response.{}.done", open.kind.event()), done);
        if open.kind.has_parts() {
            let mut part = place();
            part["content_index"] = 0.into();
            part["part"] = open.part();
            self.push(events, "response.content_part.done", part);
        }
        let item = open.item(status);
        self.push(events, "response.output_item.done", json!({ "output_index": index, "item": item }));
        self.output.push(item);
    }

    fn push(&mut self, events: &mut Vec<Value>, kind: &str, mut event: Value) {
        event["type"] = kind.into();
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        events.push(event);
    }

    fn response(&self, status: &str, usage: Option<Usage>) -> Value {
        let mut response = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "error": null,
            "incomplete_details": null,
            "model": self.model,
            "output": self.output,
            "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null },
            "store": false,
            "usage": usage.map(counted),
        });
        if let Value::Object(fields) = &mut response {
            fields.extend(self.echo.clone());
        }
        response
    }
}

impl Kind {
    fn prefix(&self) -> &'static str {
        match self {
            Self::Reasoning => "rs",
            Self::Message => "msg",
            Self::Call { .. } => "fc",
        }
    }

    /// The middle of its events' names.
    fn event(&self) -> &'static str {
        match self {
            Self::Reasoning => "reasoning_text",
            Self::Message => "output_text",
            Self::Call { .. } => "function_call_arguments",
        }
    }

    fn has_parts(&self) -> bool {
        !matches!(self, Self::Call { .. })
    }
}

impl Open {
    /// The item before anything of it is there.
    fn begun(&self) -> Value {
        let mut item = self.item("in_progress");
        if self.kind.has_parts() {
            item["content"] = json!([]);
        }
        item
    }

    fn part(&self) -> Value {
        match self.kind {
            Kind::Reasoning => json!({ "type": "reasoning_text", "text": self.text }),
            _ => json!({ "type": "output_text", "text": self.text, "annotations": [], "logprobs": self.logprobs }),
        }
    }

    fn item(&self, status: &str) -> Value {
        match &self.kind {
            Kind::Reasoning => {
                json!({ "id": self.id, "type": "reasoning", "summary": [], "content": [self.part()], "status": status })
            }
            Kind::Message => {
                json!({ "id": self.id, "type": "message", "role": "assistant", "status": status, "content": [self.part()] })
            }
            Kind::Call { call_id, name, .. } => json!({
                "id": self.id, "type": "function_call", "call_id": call_id, "name": name, "arguments": self.text, "status": status,
            }),
        }
    }
}

fn id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::new_v4().simple())
}

fn counted(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens },
        "output_tokens": usage.completion_tokens,
        // Not told apart: they are counted as output.
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        Writer::new("m".to_owned(), Map::from_iter([("metadata".to_owned(), json!({ "a": "b" }))]), None)
    }

    fn call(index: u32, id: &str, name: &str, arguments: &str) -> Delta {
        let part = ToolCallDelta { index, id: id.into(), name: name.into(), arguments: arguments.into() };
        Delta { tool_calls: vec![part], ..Default::default() }
    }

    fn kinds(events: &[Value]) -> Vec<&str> {
        events
            .iter()
            .filter_map(|event| event["type"].as_str())
            .map(|kind| kind.trim_start_matches("response."))
            .collect()
    }

    #[test]
    fn thoughts_text_and_calls_are_items_of_their_own() {
        let mut writer = writer();
        let mut events = writer.opening();
        events.extend(writer.delta(Delta { reasoning: "hm".to_owned(), ..Default::default() }));
        events.extend(writer.delta(Delta { text: "Let me ".to_owned(), ..Default::default() }));
        events.extend(writer.delta(Delta { text: "see.".to_owned(), ..Default::default() }));
        events.extend(writer.delta(call(0, "a", "time", "")));
        events.extend(writer.delta(call(0, "", "", "{}")));
        events.extend(writer.delta(call(1, "b", "time", "{}")));
        let usage = Usage { prompt_tokens: 5, completion_tokens: 7, cached_tokens: 2 };
        events.extend(writer.finish(&Finished {
            reason: FinishReason::ToolCalls.into(),
            usage: Some(usage),
            ..Default::default()
        }));
        assert_eq!(
            kinds(&events),
            [
                "created",
                "in_progress",
                "output_item.added",
                "content_part.added",
                "reasoning_text.delta",
                "reasoning_text.done",
                "content_part.done",
                "output_item.done",
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
                "output_item.added",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "output_item.done",
                "output_item.added",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "output_item.done",
                "completed",
            ]
        );
        let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64()).collect();
        assert_eq!(numbers, (0..24).map(Some).collect::<Vec<_>>());
        let response = &events.last().expect("events")["response"];
        let output = response["output"].as_array().expect("items");
        assert_eq!(output[1]["content"][0]["text"], "Let me see.");
        assert_eq!((&output[2]["call_id"], &output[2]["arguments"]), (&json!("a"), &json!("{}")));
        assert_eq!((&output[3]["call_id"], output.len()), (&json!("b"), 4));
        assert_eq!((&response["status"], &response["usage"]["total_tokens"]), (&json!("completed"), &json!(12)));
        assert_eq!((&response["metadata"]["a"], &events[2]["item"]["content"]), (&json!("b"), &json!([])));
    }

    #[test]
    fn an_answer_that_was_cut_is_incomplete() {
        let mut writer = writer();
        writer.delta(Delta { text: "a".to_owned(), ..Default::default() });
        let events = writer.finish(&Finished { reason: FinishReason::Length.into(), ..Default::default() });
        let response = &events.last().expect("events")["response"];
        assert_eq!(kinds(&events).last(), Some(&"incomplete"));
        assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(response["output"][0]["status"], "incomplete");
    }

    #[test]
    fn a_call_that_a_stop_string_cut_is_incomplete() {
        let mut writer = writer();
        writer.delta(call(0, "a", "time", r#"{"ci"#));
        let events = writer.finish(&Finished { reason: FinishReason::Stop.into(), ..Default::default() });
        let response = &events.last().expect("events")["response"];
        assert_eq!((kinds(&events).last(), &response["status"]), (Some(&"incomplete"), &json!("incomplete")));
        assert_eq!(response["incomplete_details"], json!({ "reason": null }));
        assert_eq!(response["output"][0]["status"], "incomplete");
    }

    #[test]
    fn an_answer_without_a_word_is_an_empty_message() {
        let mut writer = writer();
        let events = writer.finish(&Finished::default());
        assert_eq!(events.last().expect("events")["response"]["output"][0]["content"][0]["text"], "");
    }

    #[test]
    fn a_failure_says_why() {
        let events = writer().fail(&ApiError::internal("broken"));
        assert_eq!(events[0]["response"]["error"], json!({ "code": "server_error", "message": "broken" }));
        assert_eq!((kinds(&events), &events[0]["response"]["status"]), (vec!["failed"], &json!("failed")));
    }
}

//! A streamed answer: server-sent events, one a step, ended by `[DONE]` or by an error event.
//!
//! The hot path: eight streams of fifty tokens a second share their cores with the engine. One allocation an event.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures::{
    Stream, StreamExt as _,
    stream::{select_all, unfold},
};
use serde::Serialize;
use serde_json::Value;
use slm_proto::v1::{Delta, ToolCallDelta};

use super::{
    error::{ApiError, ErrorEnvelope},
    head::{CompletionKind, Head, Usage, finish_reason},
    logprobs,
    params::ResponseOptions,
};
use crate::{
    events::{Answer, Event},
    refusal::Refusal,
};

/// Typical size of an event without log-probabilities.
const EVENT_BYTES: usize = 384;

pub(super) fn response(head: Head, answers: Vec<Answer>, options: ResponseOptions) -> Response {
    let writer = Writer::new(head, options, answers.len());
    let events =
        answers.into_iter().enumerate().map(|(index, answer)| answer.relayed().1.map(move |event| (index, event)));
    stream(Body::from_stream(written(writer, select_all(events))))
}

/// A response whose body is a stream of events.
pub(super) fn stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

enum Phase {
    Opening,
    Running,
    Ended,
}

fn written(
    writer: Writer,
    events: impl Stream<Item = (usize, Result<Event, Refusal>)> + Unpin,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold((writer, events, Phase::Opening), |(mut writer, mut events, phase)| async move {
        match phase {
            Phase::Opening => {
                let bytes = writer.opening();
                Some((Ok(bytes), (writer, events, Phase::Running)))
            }
            Phase::Running => loop {
                let (bytes, next) = match events.next().await {
                    Some((index, Ok(event))) => match writer.event(index, event) {
                        Some(bytes) => (bytes, Phase::Running),
                        None => continue,
                    },
                    // One choice that fails ends all: a caller cannot use half of an answer.
                    Some((_, Err(refusal))) => (error(refusal), Phase::Ended),
                    None => (writer.closing(), Phase::Ended),
                };
                return Some((Ok(bytes), (writer, events, next)));
            },
            Phase::Ended => None,
        }
    })
}

/// Turns events into bytes.
struct Writer {
    head: Head,
    include_usage: bool,
    answers_per_prompt: usize,
    usage: Usage,
    /// Characters of each choice so far, for `text_offset`.
    offsets: Vec<usize>,
}

#[derive(Serialize)]
struct Chunk<'c> {
    id: &'c str,
    object: &'static str,
    created: u64,
    model: &'c str,
    system_fingerprint: &'c str,
    choices: &'c [Choice<'c>],
    /// Null until the last, when usage was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x_slm_decision: Option<&'c Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x_slm_retrieval: Option<&'c Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'c> {
    Chat { index: usize, delta: ChatDelta<'c>, logprobs: Option<logprobs::Chat>, finish_reason: Option<&'static str> },
    Text { index: usize, text: &'c str, logprobs: Option<logprobs::Text>, finish_reason: Option<&'static str> },
}

#[derive(Default, Serialize)]
struct ChatDelta<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'c>; 1]>,
}

/// A part of a call; id, type and name are in the first.
#[derive(Serialize)]
struct CallDelta<'c> {
    index: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'c str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta<'c>,
}

#[derive(Serialize)]
struct FunctionDelta<'c> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'c str,
    arguments: &'c str,
}

impl<'c> ChatDelta<'c> {
    /// As OpenAI sends it: text and thoughts in one, the name of a call in one, a part of its arguments in one.
    fn all(delta: &'c Delta) -> impl Iterator<Item = Self> {
        let says = !(delta.text.is_empty() && delta.reasoning.is_empty());
        let said = (says || delta.tool_calls.is_empty()).then(|| Self::said(delta));
        let call = |call| Self { tool_calls: Some([call]), ..Self::default() };
        said.into_iter().chain(delta.tool_calls.iter().flat_map(CallDelta::all).map(call))
    }

    fn said(delta: &'c Delta) -> Self {
        let only_thinks = delta.text.is_empty() && !delta.reasoning.is_empty();
        Self {
            content: (!only_thinks).then_some(delta.text.as_str()),
            reasoning_content: Some(delta.reasoning.as_str()).filter(|reasoning| !reasoning.is_empty()),
            ..Self::default()
        }
    }
}

impl<'c> CallDelta<'c> {
    fn all(part: &'c ToolCallDelta) -> impl Iterator<Item = Self> {
        let ToolCallDelta { index, id, name, arguments } = part;
        let begun = (!id.is_empty()).then_some(Self {
            index: *index,
            id,
            kind: Some("function"),
            function: FunctionDelta { name, arguments: "" },
        });
        let argued = (!arguments.is_empty()).then_some(Self {
            index: *index,
            id: "",
            kind: None,
            function: FunctionDelta { name: "", arguments },
        });
        begun.into_iter().chain(argued)
    }
}

impl Writer {
    fn new(head: Head, options: ResponseOptions, choices: usize) -> Self {
        Self {
            head,
            include_usage: options.include_usage,
            answers_per_prompt: options.choices.computed,
            usage: Usage::default(),
            offsets: vec![0; choices],
        }
    }

    /// Chat begins with the role. Both kinds carry the decision here, when it was asked for, and the citations of what was retrieved.
    fn opening(&self) -> Bytes {
        let choices: Vec<Choice<'_>> = (0..self.offsets.len())
            .map(|index| match self.head.kind {
                CompletionKind::Chat => {
                    let delta = ChatDelta { role: Some("assistant"), content: Some(""), ..Default::default() };
                    Choice::Chat { index, delta, logprobs: None, finish_reason: None }
                }
                CompletionKind::Text => Choice::Text { index, text: "", logprobs: None, finish_reason: None },
            })
            .collect();
        self.chunk(&choices, None, Some(&self.head))
    }

    /// `None` for a step without text, such as one that holds only part of a character.
    fn event(&mut self, index: usize, event: Event) -> Option<Bytes> {
        match event {
            Event::Delta(delta) if says_nothing(&delta) => None,
            Event::Delta(delta) => Some(self.delta(index, &delta)),
            Event::Finished(finished) => {
                self.usage.add(finished.usage, finished.cost.as_ref(), index.is_multiple_of(self.answers_per_prompt));
                let finish_reason = Some(finish_reason(finished.reason()));
                let choice = match self.head.kind {
                    CompletionKind::Chat => {
                        let delta = ChatDelta::default();
                        Choice::Chat { index, delta, logprobs: None, finish_reason }
                    }
                    CompletionKind::Text => Choice::Text { index, text: "", logprobs: None, finish_reason },
                };
                Some(self.chunk(&[choice], None, None))
            }
        }
    }

    fn delta(&mut self, index: usize, delta: &Delta) -> Bytes {
        let tokens = self.head.logprobs.map(|names| (delta.logprobs.as_slice(), names));
        match self.head.kind {
            CompletionKind::Chat => {
                let mut logprobs = tokens.map(|(tokens, names)| logprobs::chat(tokens, names));
                let choice = |delta| Choice::Chat { index, delta, logprobs: logprobs.take(), finish_reason: None };
                let choices = ChatDelta::all(delta).map(choice);
                let mut events = choices.map(|choice| self.chunk(&[choice], None, None));
                match (events.next(), events.next()) {
                    (Some(first), Some(second)) => [first, second].into_iter().chain(events).flatten().collect(),
                    (first, _) => first.unwrap_or_default(),
                }
            }
            CompletionKind::Text => {
                let offset = self.offsets.get_mut(index);
                let logprobs =
                    tokens.zip(offset).map(|((tokens, names), offset)| logprobs::text(tokens, names, offset));
                self.chunk(&[Choice::Text { index, text: &delta.text, logprobs, finish_reason: None }], None, None)
            }
        }
    }

    fn closing(&self) -> Bytes {
        let mut bytes = Vec::new();
        if self.include_usage {
            bytes.extend_from_slice(&self.chunk(&[], Some(self.usage), None));
        }
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        bytes.into()
    }

    fn chunk(&self, choices: &[Choice<'_>], usage: Option<Usage>, opening: Option<&Head>) -> Bytes {
        let head = &self.head;
        let object = match head.kind {
            CompletionKind::Chat => "chat.completion.chunk",
            CompletionKind::Text => "text_completion",
        };
        data(&Chunk {
            id: &head.id,
            object,
            created: head.created,
            model: &head.model,
            system_fingerprint: &head.fingerprint,
            choices,
            usage: self.include_usage.then_some(usage),
            x_slm_decision: opening.and_then(|head| head.decision.as_ref()),
            x_slm_retrieval: opening.and_then(|head| head.retrieval.as_ref()),
        })
    }
}

fn says_nothing(delta: &Delta) -> bool {
    delta.text.is_empty() && delta.logprobs.is_empty() && delta.reasoning.is_empty() && delta.tool_calls.is_empty()
}

fn error(refusal: Refusal) -> Bytes {
    data(&ErrorEnvelope { error: &ApiError::from(refusal).body })
}

fn data(value: &impl Serialize) -> Bytes {
    let mut bytes = Vec::with_capacity(EVENT_BYTES);
    bytes.extend_from_slice(b"data: ");
    if let Err(error) = serde_json::to_writer(&mut bytes, value) {
        // Strings and numbers always serialise; should they not, the caller must not take the answer for whole.
        tracing::error!(%error, "an event could not be written");
        return Bytes::from_static(
            b"data: {\"error\":{\"message\":\"internal error\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n",
        );
    }
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_of_calls_are_what_openais_client_puts_together() {
        let part = |id: &str, name: &str, arguments: &str| ToolCallDelta {
            index: 1,
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        };
        let shown = |delta: &Delta| serde_json::to_value(ChatDelta::all(delta).collect::<Vec<_>>()).expect("JSON");
        let function = json!({ "name": "f", "arguments": "" });
        let begun = json!({ "tool_calls": [{ "index": 1, "id": "x", "type": "function", "function": function }] });
        let argued =
            |arguments: &str| json!({ "tool_calls": [{ "index": 1, "function": { "arguments": arguments } }] });
        let calls = |part| Delta { tool_calls: vec![part], ..Default::default() };
        assert_eq!(shown(&calls(part("x", "f", ""))), json!([begun]));
        assert_eq!(shown(&calls(part("", "", "{}"))), json!([argued("{}")]));
        let all = Delta { text: "a".to_owned(), reasoning: "hm".to_owned(), ..calls(part("x", "f", "{")) };
        let said = json!({ "content": "a", "reasoning_content": "hm" });
        assert_eq!(shown(&all), json!([said, begun, argued("{")]));
        let thought = Delta { reasoning: "hm".to_owned(), ..Default::default() };
        assert_eq!(shown(&thought), json!([{ "reasoning_content": "hm" }]));
        assert_eq!(shown(&Delta { text: "a".to_owned(), ..Default::default() }), json!([{ "content": "a" }]));
        assert_eq!(shown(&Delta::default()), json!([{ "content": "" }]));
        assert!(says_nothing(&Delta { tokens: 1, ..Default::default() }) && !says_nothing(&thought));
    }
}

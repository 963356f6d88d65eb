//! The events of a streamed message: `message_start`, blocks of thoughts, text and calls one after another, `message_delta` with the
//! reason and the tokens, and `message_stop`; or an error.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};
use slm_proto::v1::{Delta, Finished, Started, ToolCallDelta, Usage};

use super::{
    AnthropicError,
    reply::{Head, stop, usage},
};
use crate::{events::Event, http::error::ApiError, refusal::Refusal};

pub(super) fn events(
    head: &Head,
    started: &Started,
    relayed: impl Stream<Item = Result<Event, Refusal>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let prompt = Usage { prompt_tokens: started.prompt_tokens, ..Default::default() };
    let message = head.message(json!([]), usage(Some(prompt)));
    let opening = event(&json!({ "type": "message_start", "message": message }));
    // What ends it is the last event; nothing is asked for after it.
    let rest = relayed.scan(Writer::default(), |writer, item| {
        let bytes = if writer.ended { None } else { Some(writer.written(item)) };
        std::future::ready(bytes)
    });
    stream::once(std::future::ready(opening)).chain(rest).map(|bytes| Ok(bytes.into()))
}

/// The block that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Thoughts,
    Text,
    /// Of the call of this index.
    Call(u32),
}

#[derive(Debug, Default)]
struct Writer {
    open: Option<Block>,
    /// Index of the next block.
    next: usize,
    ended: bool,
}

impl Writer {
    fn written(&mut self, item: Result<Event, Refusal>) -> Vec<u8> {
        match item {
            Ok(Event::Delta(delta)) => self.delta(&delta),
            Ok(Event::Finished(finished)) => {
                self.ended = true;
                self.closing(&finished)
            }
            Err(refusal) => {
                self.ended = true;
                event(&AnthropicError::from(ApiError::from(refusal)).json())
            }
        }
    }

    fn delta(&mut self, delta: &Delta) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !delta.reasoning.is_empty() {
            self.enter(Block::Thoughts, &json!({ "type": "thinking", "thinking": "", "signature": "" }), &mut bytes);
            self.say(&json!({ "type": "thinking_delta", "thinking": delta.reasoning }), &mut bytes);
        }
        if !delta.text.is_empty() {
            self.enter(Block::Text, &json!({ "type": "text", "text": "" }), &mut bytes);
            self.say(&json!({ "type": "text_delta", "text": delta.text }), &mut bytes);
        }
        for part in &delta.tool_calls {
            let ToolCallDelta { index, id, name, arguments } = part;
            self.enter(
                Block::Call(*index),
                &json!({ "type": "tool_use", "id": id, "name": name, "input": {} }),
                &mut bytes,
            );
            if !arguments.is_empty() {
                self.say(&json!({ "type": "input_json_delta", "partial_json": arguments }), &mut bytes);
            }
        }
        bytes
    }

    /// Opens a block, unless it is open.
    fn enter(&mut self, block: Block, content: &Value, bytes: &mut Vec<u8>) {
        if self.open == Some(block) {
            return;
        }
        self.leave(bytes);
        bytes.extend(event(&json!({ "type": "content_block_start", "index": self.next, "content_block": content })));
        self.open = Some(block);
        self.next += 1;
    }

    fn leave(&mut self, bytes: &mut Vec<u8>) {
        if self.open.take().is_some() {
            bytes.extend(event(&json!({ "type": "content_block_stop", "index": self.next - 1 })));
        }
    }

    fn say(&self, delta: &Value, bytes: &mut Vec<u8>) {
        let index = self.next.saturating_sub(1);
        bytes.extend(event(&json!({ "type": "content_block_delta", "index": index, "delta": delta })));
    }

    /// A message has a block, if only an empty one.
    fn closing(&mut self, finished: &Finished) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.next == 0 {
            self.enter(Block::Text, &json!({ "type": "text", "text": "" }), &mut bytes);
        }
        self.leave(&mut bytes);
        let (reason, sequence) = stop(finished.reason(), &finished.stop);
        let delta = json!({ "stop_reason": reason, "stop_sequence": sequence });
        bytes.extend(event(&json!({ "type": "message_delta", "delta": delta, "usage": usage(finished.usage) })));
        bytes.extend(event(&json!({ "type": "message_stop" })));
        bytes
    }
}

/// An event, named by its `type`.
fn event(value: &Value) -> Vec<u8> {
    let name = value["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {value}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use slm_proto::v1::FinishReason;

    use super::*;

    fn said(items: Vec<Result<Event, Refusal>>) -> String {
        let head = Head { id: "msg_1".to_owned(), model: "m".to_owned() };
        let started = Started { prompt_tokens: 5, ..Default::default() };
        let bytes = events(&head, &started, stream::iter(items)).map(|bytes| bytes.unwrap_or_default());
        let parts: Vec<Bytes> = bytes.collect().now_or_never().expect("all there");
        String::from_utf8(parts.concat()).expect("text")
    }

    fn names(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
    }

    fn text(text: &str) -> Result<Event, Refusal> {
        Ok(Event::Delta(Delta { text: text.to_owned(), ..Default::default() }))
    }

    #[test]
    fn a_stream_has_the_events_in_their_order() {
        let usage = Usage { prompt_tokens: 5, completion_tokens: 2, cached_tokens: 4 };
        let finished =
            Finished { reason: FinishReason::Stop.into(), usage: Some(usage), stop: "END".to_owned(), cost: None };
        let text = said(vec![text("a"), text(""), text("b"), Ok(Event::Finished(finished))]);
        let expected = [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(names(&text), expected);
        for part in [
            r#""stop_reason":"stop_sequence","stop_sequence":"END""#,
            r#""cache_read_input_tokens":4"#,
            r#""input_tokens":1,"#,
            r#""output_tokens":2"#,
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn thoughts_text_and_calls_are_blocks_of_their_own() {
        let part = |index, id: &str, arguments: &str| ToolCallDelta {
            index,
            id: id.to_owned(),
            name: if id.is_empty() { String::new() } else { "f".to_owned() },
            arguments: arguments.to_owned(),
        };
        let calls = |tool_calls| Ok(Event::Delta(Delta { tool_calls, ..Default::default() }));
        let text = said(vec![
            Ok(Event::Delta(Delta { reasoning: "hm".to_owned(), text: "I look.".to_owned(), ..Default::default() })),
            calls(vec![part(0, "x", "{")]),
            calls(vec![part(0, "", "}"), part(1, "y", "{}")]),
            Ok(Event::Finished(Finished { reason: FinishReason::ToolCalls.into(), ..Default::default() })),
        ]);
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let shown = data.map(|data| serde_json::from_str::<Value>(data).expect("JSON")).filter_map(|data| {
            let index = data["index"].as_u64()?;
            let what = [&data["content_block"]["type"], &data["delta"]["type"]].into_iter().find_map(Value::as_str);
            Some(format!("{index} {}", what.unwrap_or("end")))
        });
        let expected = [
            "0 thinking",
            "0 thinking_delta",
            "0 end",
            "1 text",
            "1 text_delta",
            "1 end",
            "2 tool_use",
            "2 input_json_delta",
            "2 input_json_delta",
            "2 end",
            "3 tool_use",
            "3 input_json_delta",
            "3 end",
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        assert!(text.contains(r#""stop_reason":"tool_use""#), "{text}");
    }

    #[test]
    fn an_empty_answer_has_a_block_and_an_error_is_the_last_event() {
        let empty = said(vec![Ok(Event::Finished(Finished::default()))]);
        assert_eq!(
            names(&empty),
            ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
        );
        let text = said(vec![Err(Refusal::DeadlineExceeded)]);
        assert_eq!(names(&text), ["message_start", "error"]);
        assert!(text.contains("timeout_error"), "{text}");
    }
}

//! Answers: one message, or the events of a stream.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};
use slm_proto::v1::{FinishReason, Finished, Started, Usage};

use super::{AnthropicError, request::Asked};
use crate::{
    dispatch::Call,
    events::Event,
    http::{
        Shared, body,
        error::{ApiError, Refused},
    },
    refusal::Refusal,
};

/// Anthropic's header with the id of a request.
const REQUEST_ID: &str = "request-id";

/// Answers. The status line is sent with the first token, so that what fails before has a status of its own.
pub(super) async fn respond(
    dispatcher: &Shared,
    (asked, hold): body::Read<Asked>,
    call: &Call,
) -> Result<Response, AnthropicError> {
    let Asked { request, stream } = asked;
    let answer = dispatcher.generate(&request, call).await.map_err(named)?;
    let head = Head { id: format!("msg_{}", uuid::Uuid::new_v4().simple()), model: request.model.clone() };
    let id = HeaderValue::from_str(&request.request_id).ok();
    drop((request, hold));
    let mut response = if stream {
        let (started, relayed) = answer.relayed();
        let mut response = Response::new(Body::from_stream(events(head, &started, relayed)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    } else {
        let completion = answer.complete().await.map_err(ApiError::from)?;
        let content = json!([{ "type": "text", "text": completion.text }]);
        let mut message = head.message(content, usage(completion.usage));
        (message["stop_reason"], message["stop_sequence"]) = stop(completion.reason(), &completion.stop);
        Json(message).into_response()
    };
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// A refusal, with Anthropic's name of the field that a worker refuses.
fn named(refusal: Refusal) -> ApiError {
    let refused = Refused::of(&refusal);
    let mut error = ApiError::from(refusal);
    if refused.and_then(|refused| refused.field).as_deref() == Some("stop") {
        error.body.message = error.body.message.replacen("stop", "stop_sequences", 1);
    }
    error
}

struct Head {
    id: String,
    model: String,
}

impl Head {
    fn message(&self, content: Value, usage: Value) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage,
        })
    }
}

/// Tokens as Anthropic counts them: those of the cache are no input tokens.
fn usage(usage: Option<Usage>) -> Value {
    let usage = usage.unwrap_or_default();
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}

/// `stop_reason` and `stop_sequence`.
fn stop(reason: FinishReason, sequence: &str) -> (Value, Value) {
    match reason {
        FinishReason::Length => ("max_tokens".into(), Value::Null),
        _ if !sequence.is_empty() => ("stop_sequence".into(), sequence.into()),
        _ => ("end_turn".into(), Value::Null),
    }
}

/// `message_start`, a block of text, `message_delta` with the reason and the tokens, and `message_stop`; or an error.
fn events(
    head: Head,
    started: &Started,
    relayed: impl Stream<Item = Result<Event, Refusal>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let prompt = Usage { prompt_tokens: started.prompt_tokens, ..Default::default() };
    let message = head.message(json!([]), usage(Some(prompt)));
    let block = json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } });
    let opening = [event(&json!({ "type": "message_start", "message": message })), event(&block)].concat();
    // What ends it is the last event; nothing is asked for after it.
    let rest = relayed.scan(false, |ended, item| {
        let bytes = if *ended { None } else { Some(written(item, ended)) };
        std::future::ready(bytes)
    });
    stream::once(std::future::ready(opening)).chain(rest).map(|bytes| Ok(bytes.into()))
}

fn written(item: Result<Event, Refusal>, ended: &mut bool) -> Vec<u8> {
    match item {
        Ok(Event::Delta(delta)) if delta.text.is_empty() => Vec::new(),
        Ok(Event::Delta(delta)) => event(&json!({
            "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": delta.text },
        })),
        Ok(Event::Finished(finished)) => {
            *ended = true;
            closing(&finished)
        }
        Err(refusal) => {
            *ended = true;
            event(&AnthropicError::from(ApiError::from(refusal)).json())
        }
    }
}

fn closing(finished: &Finished) -> Vec<u8> {
    let (reason, sequence) = stop(finished.reason(), &finished.stop);
    let delta = json!({ "stop_reason": reason, "stop_sequence": sequence });
    [
        event(&json!({ "type": "content_block_stop", "index": 0 })),
        event(&json!({ "type": "message_delta", "delta": delta, "usage": usage(finished.usage) })),
        event(&json!({ "type": "message_stop" })),
    ]
    .concat()
}

/// An event, named by its `type`.
fn event(value: &Value) -> Vec<u8> {
    let name = value["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {value}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use slm_proto::v1::Delta;

    use super::*;

    fn said(items: Vec<Result<Event, Refusal>>) -> String {
        let head = Head { id: "msg_1".to_owned(), model: "m".to_owned() };
        let started = Started { prompt_tokens: 5, ..Default::default() };
        let bytes = events(head, &started, stream::iter(items)).map(|bytes| bytes.unwrap_or_default());
        let parts: Vec<Bytes> = bytes.collect().now_or_never().expect("all there");
        String::from_utf8(parts.concat()).expect("text")
    }

    fn names(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
    }

    #[test]
    fn a_stream_has_the_events_in_their_order() {
        let delta = |text: &str| Ok(Event::Delta(Delta { text: text.to_owned(), ..Default::default() }));
        let usage = Usage { prompt_tokens: 5, completion_tokens: 2, cached_tokens: 4 };
        let finished = Finished { reason: FinishReason::Stop.into(), usage: Some(usage), stop: "END".to_owned() };
        let text = said(vec![delta("a"), delta(""), delta("b"), Ok(Event::Finished(finished))]);
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
    fn an_error_is_the_last_event() {
        let text = said(vec![Err(Refusal::DeadlineExceeded)]);
        assert_eq!(names(&text), ["message_start", "content_block_start", "error"]);
        assert!(text.contains("timeout_error"), "{text}");
    }

    #[test]
    fn reasons_have_anthropics_names() {
        assert_eq!(stop(FinishReason::Length, ""), ("max_tokens".into(), Value::Null));
        assert_eq!(stop(FinishReason::Stop, ""), ("end_turn".into(), Value::Null));
    }
}

//! Answers: lines of JSON, or one object.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use slm_proto::v1::{FinishReason, ToolCall, ToolCallDelta, Usage};

use super::{options, request::Asked};
use crate::{
    dispatch::Call,
    events::{Answer, Event},
    http::{
        Shared, body,
        error::{ApiError, Refused},
        head::finish_reason,
        names::in_function,
        plain_error::PlainError,
    },
    refusal::Refusal,
    relay::Relayed,
};

/// The two kinds of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Generate,
}

/// Answers. The status line is sent with the first token, so that what fails before has a status of its own.
pub(super) async fn respond(
    dispatcher: &Shared,
    (asked, hold): body::Read<Asked>,
    kind: Kind,
    call: &Call,
) -> Result<Response, PlainError> {
    let Asked { request, stream, .. } = asked;
    let begun = Instant::now();
    let answer = dispatcher.generate(&request, call).await.map_err(named)?;
    let head = Head { kind, model: request.model.clone(), begun, first: begun.elapsed() };
    drop((request, hold));
    if stream {
        return Ok(lines(head, answer));
    }
    let completion = answer.complete().await.map_err(ApiError::from)?;
    let parts: Vec<ToolCallDelta> = completion.tool_calls.iter().map(whole).collect();
    let said = Said { text: &completion.text, thoughts: &completion.reasoning, calls: &parts };
    let end = head.end(said, completion.reason(), completion.usage);
    Ok(Json(end).into_response())
}

/// Whether a field stands beside the options and is not one of them.
fn is_beside(field: &str) -> bool {
    matches!(field, "suffix" | "json_schema" | "json_object")
        || field.starts_with("tools")
        || field.starts_with("messages[")
}

/// A result names its tool there, and not its call.
fn result_of(field: String) -> String {
    match field.rsplit_once('.') {
        Some((message, "tool_call_id" | "name"))
            if message.starts_with("messages[") && message.ends_with(']') && !message.contains('.') =>
        {
            format!("{message}.tool_name")
        }
        _ => field,
    }
}

/// A refusal, with Ollama's name of the field that a worker refuses.
fn named(refusal: Refusal) -> ApiError {
    let refused = Refused::of(&refusal);
    let mut error = ApiError::from(refusal);
    let Some(field) = refused.and_then(|refused| refused.field) else { return error };
    let own = match field.as_str() {
        "messages" | "prompt" => return error,
        field if is_beside(field) => {
            let own = match field {
                "json_schema" | "json_object" => "format".to_owned(),
                field => result_of(in_function(field)),
            };
            if let Some(rest) = error.body.message.strip_prefix(field) {
                error.body.message = format!("`{own}`{rest}");
            }
            error.body.param = Some(own);
            return error;
        }
        "max_tokens" => "num_predict",
        "repetition_penalty" => "repeat_penalty",
        other => other,
    };
    if let Some(rest) = error.body.message.strip_prefix(&field) {
        error.body.message = format!("`{own}`{rest}");
        error.body.param = Some(own.to_owned());
        error = error.within(options::PATH);
    }
    error
}

/// What a line says.
#[derive(Clone, Copy, Default)]
struct Said<'s> {
    text: &'s str,
    thoughts: &'s str,
    /// Whole calls: Ollama's are objects, never parts.
    calls: &'s [ToolCallDelta],
}

fn whole(call: &ToolCall) -> ToolCallDelta {
    let ToolCall { id, name, arguments } = call.clone();
    ToolCallDelta { index: 0, id, name, arguments }
}

/// A call whose arguments are whole; callers here do not ask whether an answer ended within its last one.
fn call_json(call: &ToolCallDelta) -> Option<Value> {
    let arguments: Value = serde_json::from_str(&call.arguments).ok()?;
    Some(json!({ "function": { "name": call.name, "arguments": arguments } }))
}

/// What every line has.
struct Head {
    kind: Kind,
    model: String,
    begun: Instant,
    /// Until the first token.
    first: Duration,
}

impl Head {
    fn line(&self, said: Said<'_>) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("model".to_owned(), self.model.clone().into());
        line.insert("created_at".to_owned(), Timestamp::now().to_string().into());
        match self.kind {
            Kind::Chat => {
                let mut message = json!({ "role": "assistant", "content": said.text });
                if !said.thoughts.is_empty() {
                    message["thinking"] = said.thoughts.into();
                }
                let calls: Vec<Value> = said.calls.iter().filter_map(call_json).collect();
                if !calls.is_empty() {
                    message["tool_calls"] = calls.into();
                }
                line.insert("message".to_owned(), message);
            }
            Kind::Generate => {
                line.insert("response".to_owned(), said.text.into());
                if !said.thoughts.is_empty() {
                    line.insert("thinking".to_owned(), said.thoughts.into());
                }
            }
        }
        line.insert("done".to_owned(), false.into());
        line
    }

    /// The last line, or the only one. Durations are nanoseconds; the prompt's includes the wait for a place.
    fn end(&self, said: Said<'_>, reason: FinishReason, usage: Option<Usage>) -> Value {
        let usage = usage.unwrap_or_default();
        let total = self.begun.elapsed();
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let mut line = self.line(said);
        // Ollama's answers that call end as others do.
        let reason = if reason == FinishReason::ToolCalls { FinishReason::Stop } else { reason };
        let more = json!({
            "done": true,
            "done_reason": finish_reason(reason),
            "total_duration": nanoseconds(total),
            "load_duration": 0,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": nanoseconds(self.first),
            "eval_count": usage.completion_tokens,
            "eval_duration": nanoseconds(total.saturating_sub(self.first)),
        });
        if let Value::Object(more) = more {
            line.extend(more);
        }
        Value::Object(line)
    }
}

fn lines(head: Head, answer: Answer) -> Response {
    let relayed = answer.relayed().1;
    let lines = stream::unfold(Some((head, relayed, Calls::default())), |state| async move {
        let (head, mut relayed, mut calls) = state?;
        let (line, goes_on) = next(&head, &mut relayed, &mut calls).await?;
        Some((Ok::<_, Infallible>(bytes(&line)), goes_on.then_some((head, relayed, calls))))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// Calls put together from their parts.
#[derive(Default)]
struct Calls(Vec<ToolCallDelta>);

impl Calls {
    fn add(&mut self, parts: &[ToolCallDelta]) {
        for part in parts {
            match self.0.iter_mut().find(|call| call.index == part.index) {
                Some(call) => call.arguments.push_str(&part.arguments),
                None => self.0.push(part.clone()),
            }
        }
    }

    /// Takes those that are whole: a later one has begun, their arguments are, or the answer ends.
    fn ready(&mut self, ends: bool) -> Vec<ToolCallDelta> {
        let is_whole = |call: &ToolCallDelta| serde_json::from_str::<IgnoredAny>(&call.arguments).is_ok();
        let last_is_ready = ends || self.0.last().is_some_and(is_whole);
        let count = if last_is_ready { self.0.len() } else { self.0.len().saturating_sub(1) };
        self.0.drain(..count).collect()
    }
}

/// The next line, and whether others follow.
async fn next(head: &Head, relayed: &mut Relayed, calls: &mut Calls) -> Option<(Value, bool)> {
    loop {
        return Some(match relayed.next().await? {
            Ok(Event::Delta(delta)) => {
                calls.add(&delta.tool_calls);
                let ready = calls.ready(false);
                let said = Said { text: &delta.text, thoughts: &delta.reasoning, calls: &ready };
                if said.text.is_empty() && said.thoughts.is_empty() && ready.is_empty() {
                    continue;
                }
                (Value::Object(head.line(said)), true)
            }
            Ok(Event::Finished(finished)) => {
                let ready = calls.ready(true);
                let said = Said { calls: &ready, ..Said::default() };
                (head.end(said, finished.reason(), finished.usage), false)
            }
            Err(refusal) => (json!({ "error": ApiError::from(refusal).body.message }), false),
        });
    }
}

fn bytes(line: &Value) -> Bytes {
    // Some readers of lines, Python's among them, take these for ends of lines. In JSON they stand in strings only.
    const ENDS: [(char, &str); 3] = [('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029"), ('\u{85}', "\\u0085")];
    let text = format!("{line}\n");
    if !text.contains(ENDS.map(|(letter, _)| letter)) {
        return text.into();
    }
    ENDS.iter().fold(text, |text, (letter, escaped)| text.replace(*letter, escaped)).into()
}

#[cfg(test)]
mod tests {
    use slm_proto::trailers;
    use tonic::Status;

    use super::*;

    #[test]
    fn a_line_of_json_is_one_line_to_every_reader() {
        let line = json!({ "text": "a\u{2028}b\u{2029}c\u{85}d\n" });
        let written = String::from_utf8(bytes(&line).to_vec()).expect("text");
        assert_eq!(written, "{\"text\":\"a\\u2028b\\u2029c\\u0085d\\n\"}\n");
        assert_eq!(serde_json::from_str::<Value>(&written).expect("JSON"), line);
    }

    #[test]
    fn lines_have_what_ollamas_clients_read() {
        let head = |kind| Head { kind, model: "m".to_owned(), begun: Instant::now(), first: Duration::from_millis(2) };
        let said = Said { text: "hi", ..Said::default() };
        let line = head(Kind::Chat).line(said);
        assert_eq!(line["message"], json!({ "role": "assistant", "content": "hi" }));
        assert_eq!((&line["model"], &line["done"]), (&json!("m"), &json!(false)));
        assert!(line["created_at"].as_str().is_some_and(|at| at.ends_with('Z') && at.contains('T')), "{line:?}");
        let usage = Usage { prompt_tokens: 5, completion_tokens: 7, ..Default::default() };
        let end = head(Kind::Generate).end(Said::default(), FinishReason::Length, Some(usage));
        assert_eq!((&end["response"], &end["done"], &end["done_reason"]), (&json!(""), &json!(true), &json!("length")));
        assert_eq!((&end["prompt_eval_count"], &end["eval_count"]), (&json!(5), &json!(7)));
        assert_eq!(end["prompt_eval_duration"], json!(2_000_000));
    }

    #[test]
    fn calls_and_thoughts_are_in_the_message() {
        let head = Head { kind: Kind::Chat, model: "m".to_owned(), begun: Instant::now(), first: Duration::ZERO };
        let mut calls = Calls::default();
        let part = |index, name: &str, arguments: &str| ToolCallDelta {
            index,
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            ..Default::default()
        };
        calls.add(&[part(0, "f", "{\"a\":")]);
        assert_eq!(calls.ready(false), []);
        calls.add(&[part(0, "", "1}")]);
        let ready = calls.ready(false);
        let said = Said { text: "", thoughts: "hm", calls: &ready };
        let end = head.end(said, FinishReason::ToolCalls, None);
        let call = json!({ "function": { "name": "f", "arguments": { "a": 1 } } });
        let message = json!({ "role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call] });
        assert_eq!((&end["message"], &end["done_reason"]), (&message, &json!("stop")));
        calls.add(&[part(1, "f", "{\"a\":")]);
        let cut = calls.ready(true);
        let end = head.end(Said { calls: &cut, ..Said::default() }, FinishReason::Length, None);
        assert_eq!(end["message"], json!({ "role": "assistant", "content": "" }));
        assert_eq!(calls.ready(true), []);
    }

    #[test]
    fn a_workers_refusal_names_the_option() {
        for (field, param) in [
            ("max_tokens", "options.num_predict"),
            ("suffix", "suffix"),
            ("json_schema", "format"),
            ("tools[0].name", "tools[0].function.name"),
            ("messages[2].tool_call_id", "messages[2].tool_name"),
            ("messages[2].tool_calls[0].arguments", "messages[2].tool_calls[0].function.arguments"),
        ] {
            let mut status = Status::invalid_argument(format!("{field} is wrong"));
            status.metadata_mut().insert(trailers::ERROR_FIELD, field.parse().expect("a word"));
            let error = named(Refusal::Worker(status));
            assert_eq!(error.body.param.as_deref(), Some(param));
            assert_eq!(error.body.message, format!("`{param}` is wrong"));
        }
    }
}

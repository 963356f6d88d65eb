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
use serde_json::{Map, Value, json};
use slm_proto::v1::{FinishReason, Usage};

use super::{OllamaError, options, request::Asked};
use crate::{
    dispatch::Call,
    events::{Answer, Event},
    http::{
        Shared, body,
        error::{ApiError, Refused},
        head::finish_reason,
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
) -> Result<Response, OllamaError> {
    let Asked { request, stream, .. } = asked;
    let begun = Instant::now();
    let answer = dispatcher.generate(&request, call).await.map_err(named)?;
    let head = Head { kind, model: request.model.clone(), begun, first: begun.elapsed() };
    drop((request, hold));
    if stream {
        return Ok(lines(head, answer));
    }
    let completion = answer.complete().await.map_err(ApiError::from)?;
    let end = head.end(&completion.text, completion.reason(), completion.usage);
    Ok(Json(end).into_response())
}

/// A refusal, with Ollama's name of the field that a worker refuses.
fn named(refusal: Refusal) -> ApiError {
    let refused = Refused::of(&refusal);
    let mut error = ApiError::from(refusal);
    let Some(field) = refused.and_then(|refused| refused.field) else { return error };
    let own = match field.as_str() {
        "messages" | "prompt" => return error,
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

/// What every line has.
struct Head {
    kind: Kind,
    model: String,
    begun: Instant,
    /// Until the first token.
    first: Duration,
}

impl Head {
    fn line(&self, text: &str) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("model".to_owned(), self.model.clone().into());
        line.insert("created_at".to_owned(), Timestamp::now().to_string().into());
        match self.kind {
            Kind::Chat => line.insert("message".to_owned(), json!({ "role": "assistant", "content": text })),
            Kind::Generate => line.insert("response".to_owned(), text.into()),
        };
        line.insert("done".to_owned(), false.into());
        line
    }

    /// The last line, or the only one. Durations are nanoseconds; the prompt's includes the wait for a place.
    fn end(&self, text: &str, reason: FinishReason, usage: Option<Usage>) -> Value {
        let usage = usage.unwrap_or_default();
        let total = self.begun.elapsed();
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let mut line = self.line(text);
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
    let lines = stream::unfold(Some((head, relayed)), |state| async move {
        let (head, mut relayed) = state?;
        let (line, goes_on) = next(&head, &mut relayed).await?;
        Some((Ok::<_, Infallible>(bytes(&line)), goes_on.then_some((head, relayed))))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// The next line, and whether others follow.
async fn next(head: &Head, relayed: &mut Relayed) -> Option<(Value, bool)> {
    loop {
        return Some(match relayed.next().await? {
            Ok(Event::Delta(delta)) if delta.text.is_empty() => continue,
            Ok(Event::Delta(delta)) => (Value::Object(head.line(&delta.text)), true),
            Ok(Event::Finished(finished)) => (head.end("", finished.reason(), finished.usage), false),
            Err(refusal) => (json!({ "error": ApiError::from(refusal).body.message }), false),
        });
    }
}

fn bytes(line: &Value) -> Bytes {
    format!("{line}\n").into()
}

#[cfg(test)]
mod tests {
    use slm_proto::trailers;
    use tonic::Status;

    use super::*;

    #[test]
    fn lines_have_what_ollamas_clients_read() {
        let head = |kind| Head { kind, model: "m".to_owned(), begun: Instant::now(), first: Duration::from_millis(2) };
        let line = head(Kind::Chat).line("hi");
        assert_eq!(line["message"], json!({ "role": "assistant", "content": "hi" }));
        assert_eq!((&line["model"], &line["done"]), (&json!("m"), &json!(false)));
        assert!(line["created_at"].as_str().is_some_and(|at| at.ends_with('Z') && at.contains('T')), "{line:?}");
        let usage = Usage { prompt_tokens: 5, completion_tokens: 7, ..Default::default() };
        let end = head(Kind::Generate).end("", FinishReason::Length, Some(usage));
        assert_eq!((&end["response"], &end["done"], &end["done_reason"]), (&json!(""), &json!(true), &json!("length")));
        assert_eq!((&end["prompt_eval_count"], &end["eval_count"]), (&json!(5), &json!(7)));
        assert_eq!(end["prompt_eval_duration"], json!(2_000_000));
    }

    #[test]
    fn a_workers_refusal_names_the_option() {
        let mut status = Status::invalid_argument("max_tokens is 0; at least 1");
        status.metadata_mut().insert(trailers::ERROR_FIELD, "max_tokens".parse().expect("a word"));
        let error = named(Refusal::Worker(status));
        assert_eq!(error.body.message, "`options.num_predict` is 0; at least 1");
    }
}

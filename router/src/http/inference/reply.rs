//! Answers: tensors, one object, or events with such objects.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, future::try_join_all, stream};
use serde_json::{Map, Value, json};
use slm_proto::v1::EmbedResponse;

use super::{JSON_BYTES, request::Reply};
use crate::{
    events::{Answer, Event},
    http::{error::ApiError, sse},
    inference::{self, Output, VERSION, Values, expert, finished, piece, whole},
    relay::Relayed,
};

/// The tensors of whole answers, in JSON or as bytes behind it.
pub(super) async fn tensors(answers: Vec<Answer>, reply: &Reply) -> Result<Response, ApiError> {
    let (expert, outputs) = complete(answers, reply).await?;
    Ok(with_tensors(expert.as_deref(), outputs, reply))
}

/// The tensors of vectors, likewise.
pub(super) fn vectors(answer: EmbedResponse, reply: &Reply) -> Response {
    let expert = answer.expert.as_ref().map(|expert| expert.name.clone());
    with_tensors(expert.as_deref(), inference::vectors(answer), reply)
}

fn with_tensors(expert: Option<&str>, outputs: Vec<Output>, reply: &Reply) -> Response {
    let (mut described, mut binary) = (Vec::new(), Vec::new());
    for Output { name, values } in outputs {
        let mut tensor = json!({ "name": name, "datatype": values.datatype(), "shape": values.shape() });
        if reply.binary.as_ref().is_none_or(|wanted| wanted.iter().any(|wanted| wanted == name)) {
            let raw = values.raw();
            tensor["parameters"] = json!({ "binary_data_size": raw.len() });
            binary.extend_from_slice(&raw);
        } else {
            tensor["data"] = data(values);
        }
        described.push(tensor);
    }
    let mut body = head(reply, expert);
    body.insert("outputs".to_owned(), described.into());
    let json = Value::Object(body).to_string();
    if binary.is_empty() {
        return ([(header::CONTENT_TYPE, "application/json")], json).into_response();
    }
    let length = HeaderValue::from(json.len());
    let mut response = [json.as_bytes(), &binary].concat().into_response();
    response.headers_mut().insert(HeaderName::from_static(JSON_BYTES), length);
    response
}

/// Whole answers as one object: an output is a field.
pub(super) async fn object(answers: Vec<Answer>, reply: &Reply) -> Result<Response, ApiError> {
    Ok(Json(whole_object(answers, reply).await?).into_response())
}

/// A whole answer as the only event of a stream.
pub(super) async fn one_event(answers: Vec<Answer>, reply: &Reply) -> Result<Response, ApiError> {
    let event = event(&whole_object(answers, reply).await?);
    Ok(sse::stream(Body::from(event)))
}

/// A streamed answer: an event for each part of the text, and one for its end.
pub(super) fn events(answers: Vec<Answer>, reply: Reply) -> Response {
    // One text was asked, so there is one answer.
    let running = answers.into_iter().next().map(|answer| {
        let (started, relayed) = answer.relayed();
        (expert(Some(&started)), relayed, reply)
    });
    let events = stream::unfold(running, |running| async move {
        let (expert, mut relayed, reply) = running?;
        let (value, goes_on) = next(expert.as_deref(), &mut relayed, &reply).await?;
        Some((Ok::<_, Infallible>(event(&value)), goes_on.then_some((expert, relayed, reply))))
    });
    sse::stream(Body::from_stream(events))
}

/// The next event, and whether others follow.
async fn next(expert: Option<&str>, relayed: &mut Relayed, reply: &Reply) -> Option<(Value, bool)> {
    loop {
        let (outputs, goes_on) = match relayed.next().await? {
            Ok(Event::Delta(delta)) if delta.text.is_empty() => continue,
            Ok(Event::Delta(delta)) => (piece(&reply.form, delta.text), true),
            Ok(Event::Finished(end)) => (finished(&reply.form, &end), false),
            Err(refusal) => return Some((json!({ "error": ApiError::from(refusal).body.message }), false)),
        };
        return Some((fields(head(reply, expert), outputs), goes_on));
    }
}

async fn complete(answers: Vec<Answer>, reply: &Reply) -> Result<(Option<String>, Vec<Output>), ApiError> {
    let completions = try_join_all(answers.into_iter().map(Answer::complete)).await?;
    let expert = expert(completions.first().and_then(|completion| completion.started.as_ref()));
    Ok((expert, whole(&reply.form, completions)))
}

async fn whole_object(answers: Vec<Answer>, reply: &Reply) -> Result<Value, ApiError> {
    let (expert, outputs) = complete(answers, reply).await?;
    Ok(fields(head(reply, expert.as_deref()), outputs))
}

/// An output of one text is that text, or its number; of several a list.
fn fields(mut body: Map<String, Value>, outputs: Vec<Output>) -> Value {
    for Output { name, values } in outputs {
        let value = match data(values) {
            Value::Array(mut values) if values.len() == 1 => values.remove(0),
            values => values,
        };
        body.insert(name.to_owned(), value);
    }
    body.into()
}

fn data(values: Values) -> Value {
    match values {
        Values::Texts(texts) => texts.into(),
        Values::Counts(counts) => counts.into(),
        // Row after row.
        Values::Vectors { floats, .. } => json!(floats),
    }
}

fn head(reply: &Reply, expert: Option<&str>) -> Map<String, Value> {
    let mut head = Map::new();
    head.insert("model_name".to_owned(), reply.model.clone().into());
    head.insert("model_version".to_owned(), VERSION.into());
    if !reply.id.is_empty() {
        head.insert("id".to_owned(), reply.id.clone().into());
    }
    if let Some(expert) = expert {
        head.insert("parameters".to_owned(), json!({ "slm_expert": expert }));
    }
    head
}

fn event(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_of_one_text_is_no_list() {
        let output = |texts: &[&str]| {
            let values = Values::Texts(texts.iter().map(|text| (*text).to_owned()).collect());
            fields(Map::new(), vec![Output { name: "text_output", values }])
        };
        assert_eq!(output(&["a"]), json!({ "text_output": "a" }));
        assert_eq!(output(&["a", "b"]), json!({ "text_output": ["a", "b"] }));
    }
}

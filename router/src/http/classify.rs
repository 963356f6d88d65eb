//! `POST /v1/classify`, and `/classify`, as vLLM has them.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde::Serialize;
use slm_proto::v1::{Classification, ClassifyRequest, ClassifyResponse};

use super::{
    Shared, body, content_type,
    embeddings::{inputs, named},
    error::ApiError,
    fields::Fields,
    params, reply, unsupported,
};
use crate::{access::table::Caller, dispatch::Call, metrics::Api};

/// Names of the fields that are read.
const NAMES: [&str; 6] = ["model", "input", "truncate", "metadata", "priority", "user"];

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/classify", post(handle)).route("/classify", post(handle))
}

async fn handle(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    content_type::check(&headers)?;
    let ((mut request, several), _hold) = body::read(body, &dispatcher, &caller, parse).await?;
    let id = reply::request_id(&headers);
    request.request_id.clone_from(&id);
    let model = request.model.clone();
    let call = Call::new(caller, Api::http_classify, None);
    let answer = dispatcher.encode(request, &call).await.map_err(|refusal| named(refusal, "input", several))?;
    let expert = answer.expert.clone();
    let response = Json(List::of(answer, id.clone(), model)).into_response();
    Ok(reply::identified(response, expert.as_ref(), &id))
}

/// The request, and whether `input` is a list of inputs.
fn parse(mut fields: Fields) -> Result<(ClassifyRequest, bool), ApiError> {
    let (inputs, several) = inputs("input", fields.raw("input"))?;
    let request = ClassifyRequest {
        model: fields.take::<String>("model")?.unwrap_or_default(),
        inputs,
        truncate: fields.take("truncate")?.unwrap_or(false),
        metadata: params::metadata(&mut fields)?,
        priority: fields.take("priority")?.unwrap_or(0),
        ..ClassifyRequest::default()
    };
    unsupported::refuse(fields, &NAMES)?;
    Ok((request, several))
}

#[cfg(fuzzing)]
pub(super) fn readable(fields: Fields) -> Result<(), ApiError> {
    parse(fields).map(drop)
}

/// The answer.
#[derive(Serialize)]
struct List {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    data: Vec<Item>,
    /// Names of all labels, in the order of `probs`.
    labels: Vec<String>,
    /// The expert of each label, of a head.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    experts: Vec<String>,
    usage: Usage,
}

#[derive(Serialize)]
struct Item {
    index: usize,
    label: String,
    probs: Vec<f32>,
    num_classes: usize,
    /// Of a head.
    #[serde(skip_serializing_if = "Option::is_none")]
    typicality: Option<f32>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
    completion_tokens: u32,
}

impl List {
    fn of(answer: ClassifyResponse, id: String, model: String) -> Self {
        let ClassifyResponse { classifications, labels, experts, prompt_tokens, .. } = answer;
        let item = |(index, Classification { probabilities: probs, typicality }): (usize, Classification)| {
            let largest = (0..probs.len()).max_by(|a, b| probs[*a].total_cmp(&probs[*b]).then(b.cmp(a)));
            let label = largest.and_then(|largest| labels.get(largest)).cloned().unwrap_or_default();
            Item { index, label, num_classes: probs.len(), probs, typicality }
        };
        let data = classifications.into_iter().enumerate().map(item).collect();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let usage = Usage { prompt_tokens, total_tokens: prompt_tokens, completion_tokens: 0 };
        Self { id, object: "list", created, model, data, labels, experts, usage }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(body: &Value) -> Result<(ClassifyRequest, bool), ApiError> {
        parse(Fields::new(body.as_object().expect("an object").clone()))
    }

    #[test]
    fn a_request_is_a_text_or_several() {
        let (request, several) = asked(&json!({ "model": "m", "input": "a", "user": "u" })).expect("good");
        assert_eq!((request.model.as_str(), request.inputs.len(), several), ("m", 1, false));
        let (request, several) = asked(&json!({ "input": ["a", "b"], "truncate": true })).expect("good");
        assert_eq!((request.inputs.len(), request.truncate, several), (2, true, true));
    }

    #[test]
    fn refusals_name_the_parameter() {
        for (body, param, words) in [
            (json!({}), "input", "`input` is missing"),
            (json!({ "input": "" }), "input", "is an empty string"),
            (json!({ "input": ["a", ""] }), "input[1]", "is an empty string"),
            (json!({ "input": vec!["a"; 10_000] }), "input", "holds 10000 texts; at most 2048"),
            (json!({ "input": "a", "inputs": "a" }), "inputs", "did you mean `input`"),
        ] {
            let error = asked(&body).map(|_| ()).expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param), "{}", error.body.message);
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }

    #[test]
    fn the_label_is_that_of_the_largest_probability() {
        let rows = [[0.25, 0.75], [0.5, 0.5]].map(|row| Classification { probabilities: row.into(), typicality: None });
        let answer = ClassifyResponse {
            classifications: rows.into(),
            labels: vec!["no".into(), "yes".into()],
            prompt_tokens: 5,
            ..ClassifyResponse::default()
        };
        let list = serde_json::to_value(List::of(answer, "c".into(), "m".into())).expect("JSON");
        let expected = json!([
            { "index": 0, "label": "yes", "probs": [0.25, 0.75], "num_classes": 2 },
            { "index": 1, "label": "no", "probs": [0.5, 0.5], "num_classes": 2 },
        ]);
        assert_eq!((&list["data"], &list["labels"]), (&expected, &json!(["no", "yes"])));
        assert_eq!(list["usage"]["total_tokens"], 5);
    }
}

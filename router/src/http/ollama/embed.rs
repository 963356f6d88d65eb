//! `/api/embed`, and `/api/embeddings`, which is older and takes one text.

use std::time::Instant;

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use serde_json::Value;
use slm_proto::v1::{EmbedRequest, EmbedResponse, GenerateRequest};

use super::{options, without_tag};
use crate::{
    access::table::Caller,
    dispatch::Call,
    http::{
        Shared, body, content_type,
        embeddings::{inputs, named},
        error::ApiError,
        fields::Fields,
        plain_error::PlainError,
        reply::request_id,
        unsupported::LeftOver,
    },
    metrics::Api,
};

const EMBED: LeftOver<'_> = LeftOver {
    harmless: &["keep_alive"],
    unsupported: &[],
    read: &["model", "input", "truncate", "dimensions", "options"],
};
const EMBEDDINGS: LeftOver<'_> =
    LeftOver { harmless: &["keep_alive"], unsupported: &[], read: &["model", "prompt", "options"] };

/// The answer of `/api/embed`. Durations are nanoseconds.
#[derive(Serialize)]
struct Vectors {
    model: String,
    embeddings: Vec<Vec<f32>>,
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: u32,
}

/// The answer of `/api/embeddings`.
#[derive(Serialize)]
struct Vector {
    embedding: Vec<f32>,
}

pub(super) async fn embed(
    state: State<Shared>,
    caller: Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PlainError> {
    let begun = Instant::now();
    let (answer, model) = vectors(state, caller, headers, body, ("input", parse_embed)).await?;
    let embeddings = answer.embeddings.into_iter().map(|embedding| embedding.values).collect();
    let total_duration = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let prompt_eval_count = answer.prompt_tokens;
    Ok(Json(Vectors { model, embeddings, total_duration, load_duration: 0, prompt_eval_count }).into_response())
}

pub(super) async fn embeddings(
    state: State<Shared>,
    caller: Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PlainError> {
    let (answer, _) = vectors(state, caller, headers, body, ("prompt", parse_embeddings)).await?;
    let embedding = answer.embeddings.into_iter().next().map(|embedding| embedding.values).unwrap_or_default();
    Ok(Json(Vector { embedding }).into_response())
}

/// A request, and whether its inputs are a list.
type Parsed = Result<(EmbedRequest, bool), ApiError>;

async fn vectors(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
    (input, parse): (&'static str, fn(Fields) -> Parsed),
) -> Result<(EmbedResponse, String), ApiError> {
    content_type::check_pages(&headers)?;
    let ((mut request, several), _hold) = body::read(body, &dispatcher, &caller, parse).await?;
    request.request_id = request_id(&headers);
    let model = request.model.clone();
    let call = Call::new(caller, Api::ollama_embed, None);
    let answer = dispatcher.encode(request, &call).await.map_err(|refusal| named(refusal, input, several))?;
    Ok((answer, model))
}

pub(super) fn parse_embed(mut fields: Fields) -> Parsed {
    let (inputs, several) = inputs("input", fields.raw("input"))?;
    let dimensions = fields.take("dimensions")?;
    // Ollama cuts what is too long unless it is told not to.
    let truncate = fields.take("truncate")?.unwrap_or(true);
    let request = EmbedRequest { inputs, dimensions, truncate, ..common(&mut fields)? };
    EMBED.refuse(fields)?;
    Ok((request, several))
}

fn parse_embeddings(mut fields: Fields) -> Parsed {
    let prompt = fields.take::<String>("prompt")?.map(Value::String);
    let (inputs, several) = inputs("prompt", prompt)?;
    let request = EmbedRequest { inputs, truncate: true, ..common(&mut fields)? };
    EMBEDDINGS.refuse(fields)?;
    Ok((request, several))
}

fn common(fields: &mut Fields) -> Result<EmbedRequest, ApiError> {
    let model = fields.take::<String>("model")?.unwrap_or_default();
    // Sampling changes nothing about a vector.
    options::take(fields, &mut GenerateRequest::default())?;
    Ok(EmbedRequest { model: without_tag(&model).to_owned(), ..EmbedRequest::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(body: &Value) -> Fields {
        Fields::new(body.as_object().expect("an object").clone())
    }

    #[test]
    fn requests_as_the_official_client_sends_them() {
        let body =
            json!({ "model": "m:latest", "input": ["a", "b"], "truncate": null, "options": null, "keep_alive": "5m" });
        let (request, several) = parse_embed(fields(&body)).expect("good");
        assert_eq!((request.model.as_str(), request.inputs.len(), request.truncate, several), ("m", 2, true, true));
        let body =
            json!({ "model": "m", "input": "a", "truncate": false, "dimensions": 8, "options": { "num_ctx": 512 } });
        let (request, several) = parse_embed(fields(&body)).expect("good");
        assert_eq!((request.dimensions, request.truncate, several), (Some(8), false, false));
        let (request, _) = parse_embeddings(fields(&json!({ "model": "m", "prompt": "a" }))).expect("good");
        assert_eq!((request.inputs.len(), request.truncate), (1, true));
    }

    #[test]
    fn refusals_name_the_field() {
        for (parse, body, param, words) in [
            (parse_embed as fn(Fields) -> Parsed, json!({ "model": "m" }), "input", "missing"),
            (parse_embed, json!({ "input": ["a"], "truncated": true }), "truncated", "did you mean `truncate`"),
            (parse_embed, json!({ "input": ["a"], "options": { "num_ctxx": 1 } }), "options.num_ctxx", "num_ctxx"),
            (parse_embeddings, json!({ "prompt": "" }), "prompt", "empty string"),
            (parse_embeddings, json!({ "prompt": ["a"] }), "prompt", "has to be a string"),
        ] {
            let error = parse(fields(&body)).map(|_| ()).expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param), "{}", error.body.message);
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }
}

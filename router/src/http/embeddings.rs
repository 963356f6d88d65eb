//! `POST /v1/embeddings`.

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::Value;
use slm_proto::v1::{EmbedInput, EmbedRequest, EmbedResponse, Embedding, TokenIds, embed_input::Input};

use super::{
    Shared, body, content_type,
    error::{ApiError, Refused},
    fields::{Fields, read, shown},
    params, reply, unsupported,
};
use crate::{access::table::Caller, dispatch::Call, metrics::Api, refusal::Refusal};

/// Inputs of a request, as OpenAI bounds them; the worker has the same bound.
const INPUTS_MAX: usize = 2048;

/// Names of the fields that are read.
const NAMES: [&str; 8] =
    ["model", "input", "encoding_format", "dimensions", "truncate", "metadata", "priority", "user"];

/// Form of the vectors in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Float,
    /// Of the bytes of 32-bit floats, the lowest first.
    Base64,
}

/// A request, and how to answer it.
#[derive(Debug)]
struct Asked {
    request: EmbedRequest,
    encoding: Encoding,
    /// Whether `input` is a list of inputs.
    several: bool,
}

pub(super) async fn handle(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    content_type::check(&headers)?;
    let (mut asked, _hold) = body::read(body, &dispatcher, &caller, parse).await?;
    let id = reply::request_id(&headers);
    asked.request.request_id.clone_from(&id);
    let model = asked.request.model.clone();
    let call = Call::new(caller, Api::http_embeddings, None);
    let answer = dispatcher.encode(asked.request, &call).await;
    let answer = answer.map_err(|refusal| named(refusal, "input", asked.several))?;
    let expert = answer.expert.clone();
    let response = Json(List::of(answer, model, asked.encoding)).into_response();
    Ok(reply::identified(response, expert.as_ref(), &id))
}

fn parse(mut fields: Fields) -> Result<Asked, ApiError> {
    let encoding = encoding(&mut fields)?;
    let (inputs, several) = inputs("input", fields.raw("input"))?;
    let request = EmbedRequest {
        model: fields.take::<String>("model")?.unwrap_or_default(),
        inputs,
        dimensions: fields.take("dimensions")?,
        truncate: fields.take("truncate")?.unwrap_or(false),
        metadata: params::metadata(&mut fields)?,
        priority: fields.take("priority")?.unwrap_or(0),
        ..EmbedRequest::default()
    };
    unsupported::refuse(fields, &NAMES)?;
    Ok(Asked { request, encoding, several })
}

#[cfg(fuzzing)]
pub(super) fn readable(fields: Fields) -> Result<(), ApiError> {
    parse(fields).map(drop)
}

fn encoding(fields: &mut Fields) -> Result<Encoding, ApiError> {
    match fields.raw("encoding_format") {
        None => Ok(Encoding::Float),
        Some(Value::String(name)) if name == "float" => Ok(Encoding::Float),
        Some(Value::String(name)) if name == "base64" => Ok(Encoding::Base64),
        Some(other) => {
            let message = format!("`encoding_format` has to be \"float\" or \"base64\", not {}", shown(&other));
            Err(ApiError::param("encoding_format", message))
        }
    }
}

/// A string, a list of strings, a list of token ids, or a list of such lists. Also whether it is a list of inputs.
pub(super) fn inputs(path: &str, value: Option<Value>) -> Result<(Vec<EmbedInput>, bool), ApiError> {
    let input = |input| EmbedInput { input: Some(input) };
    match value {
        None => Err(ApiError::param(path, format!("`{path}` is missing; send a text"))),
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            Ok((vec![input(token_ids(path, &items)?)], false))
        }
        Some(Value::Array(items)) if items.is_empty() => {
            Err(ApiError::param(path, format!("`{path}` is an empty list; send at least one text")))
        }
        Some(Value::Array(items)) if items.len() > INPUTS_MAX => {
            let message = format!("`{path}` holds {} texts; at most {INPUTS_MAX} are taken at once", items.len());
            Err(ApiError::param(path, message))
        }
        Some(Value::Array(items)) => {
            let each = items.into_iter().enumerate();
            let inputs = each.map(|(index, item)| one(&format!("{path}[{index}]"), item).map(input));
            Ok((inputs.collect::<Result<_, _>>()?, true))
        }
        Some(value) => Ok((vec![input(one(path, value)?)], false)),
    }
}

fn one(path: &str, value: Value) -> Result<Input, ApiError> {
    match value {
        Value::String(text) if text.is_empty() => {
            let remedy = if path.ends_with(']') { "send a text, or leave it out" } else { "send a text" };
            Err(ApiError::param(path, format!("`{path}` is an empty string; {remedy}")))
        }
        Value::String(text) => Ok(Input::Text(text)),
        Value::Array(ids) => token_ids(path, &ids),
        other => {
            let message =
                format!("`{path}` has to be a string, a list of strings or a list of token ids, not {}", shown(&other));
            Err(ApiError::param(path, message))
        }
    }
}

fn token_ids(path: &str, ids: &[Value]) -> Result<Input, ApiError> {
    let ids = ids.iter().enumerate().map(|(index, id)| read(&format!("{path}[{index}]"), id));
    Ok(Input::TokenIds(TokenIds { ids: ids.collect::<Result<_, _>>()? }))
}

/// A refusal, with the caller's name of the field that a worker refuses; `input` is that of the inputs.
pub(crate) fn named(refusal: Refusal, input: &str, several: bool) -> ApiError {
    let refused = Refused::of(&refusal);
    let mut error = ApiError::from(refusal);
    let Some(field) = refused.and_then(|refused| refused.field) else { return error };
    let own = match field.strip_prefix("inputs") {
        Some(index) if several => format!("{input}{index}"),
        Some(_) => input.to_owned(),
        None => field.clone(),
    };
    // Such a message begins with its field.
    if let Some(rest) = error.body.message.strip_prefix(&field) {
        error.body.message = format!("`{own}`{rest}");
    }
    error.body.param = Some(own);
    error
}

/// The answer.
#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Item>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Numbers,
}

/// Floats are written with as few digits as tell them apart from other floats of 32 bits.
#[derive(Serialize)]
#[serde(untagged)]
enum Numbers {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl List {
    fn of(answer: EmbedResponse, model: String, encoding: Encoding) -> Self {
        let item = |(index, Embedding { values }): (usize, Embedding)| {
            let embedding = match encoding {
                Encoding::Float => Numbers::Float(values),
                Encoding::Base64 => {
                    let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
                    Numbers::Base64(STANDARD.encode(bytes))
                }
            };
            Item { object: "embedding", index, embedding }
        };
        let usage = Usage { prompt_tokens: answer.prompt_tokens, total_tokens: answer.prompt_tokens };
        let data = answer.embeddings.into_iter().enumerate().map(item).collect();
        Self { object: "list", data, model, usage }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tonic::Status;

    use super::*;

    fn asked(body: &Value) -> Result<Asked, ApiError> {
        parse(Fields::new(body.as_object().expect("an object").clone()))
    }

    #[test]
    fn inputs_of_every_kind() {
        let text = |text: &str| EmbedInput { input: Some(Input::Text(text.to_owned())) };
        let ids = |ids: &[u32]| EmbedInput { input: Some(Input::TokenIds(TokenIds { ids: ids.to_vec() })) };
        let of = |input: Value| {
            asked(&json!({ "model": "m", "input": input })).map(|asked| (asked.request.inputs, asked.several))
        };
        assert_eq!(of(json!("a")), Ok((vec![text("a")], false)));
        assert_eq!(of(json!(["a", "b"])), Ok((vec![text("a"), text("b")], true)));
        assert_eq!(of(json!([1, 2])), Ok((vec![ids(&[1, 2])], false)));
        assert_eq!(of(json!([[1], [2, 3]])), Ok((vec![ids(&[1]), ids(&[2, 3])], true)));
    }

    #[test]
    fn a_request_as_the_official_client_sends_it() {
        let body = json!({ "model": "m", "input": ["a"], "encoding_format": "base64", "dimensions": 8, "user": "u" });
        let asked = asked(&body).expect("good");
        assert_eq!((asked.encoding, asked.request.dimensions), (Encoding::Base64, Some(8)));
        assert!(!asked.request.truncate);
    }

    #[test]
    fn refusals_name_the_parameter() {
        let many = vec!["a"; INPUTS_MAX + 1];
        for (body, param, words) in [
            (json!({}), "input", "`input` is missing"),
            (json!({ "input": [] }), "input", "is an empty list"),
            (json!({ "input": "" }), "input", "is an empty string"),
            (json!({ "input": ["a", ""] }), "input[1]", "is an empty string"),
            (json!({ "input": many }), "input", "holds 2049 texts; at most 2048"),
            (json!({ "input": {} }), "input", "not an object"),
            (json!({ "input": ["a", 1] }), "input[1]", "not 1"),
            (json!({ "input": [1, "a"] }), "input[1]", "an integer"),
            (json!({ "input": [[1, -1]] }), "input[0][1]", "an integer"),
            (json!({ "input": "a", "encoding_format": "int8" }), "encoding_format", "\"float\" or \"base64\""),
            (json!({ "input": "a", "dimensions": "8" }), "dimensions", "an integer"),
            (json!({ "input": "a", "dimension": 8 }), "dimension", "did you mean `dimensions`"),
        ] {
            let error = asked(&body).expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param), "{}", error.body.message);
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }

    #[test]
    fn what_a_worker_refuses_has_the_callers_name() {
        let refusal = |message: &str, field: &'static str| {
            let mut status = Status::invalid_argument(message);
            let name = slm_proto::trailers::ERROR_FIELD;
            status.metadata_mut().insert(name, tonic::metadata::MetadataValue::from_static(field));
            Refusal::Worker(status)
        };
        for (message, field, several, param, words) in [
            ("inputs[3] has 9 tokens", "inputs[3]", true, "input[3]", "`input[3]` has 9 tokens"),
            ("inputs[0] has 9 tokens", "inputs[0]", false, "input", "`input` has 9 tokens"),
            ("dimensions is 0; vectors", "dimensions", false, "dimensions", "`dimensions` is 0"),
        ] {
            let error = named(refusal(message, field), "input", several);
            assert_eq!(error.body.param.as_deref(), Some(param));
            assert!(error.body.message.starts_with(words), "{}", error.body.message);
        }
    }

    #[test]
    fn vectors_are_floats_or_their_bytes() {
        let answer = || EmbedResponse {
            embeddings: vec![Embedding { values: vec![0.1, -1.0] }],
            prompt_tokens: 3,
            ..EmbedResponse::default()
        };
        let body = |encoding| serde_json::to_string(&List::of(answer(), "m".to_owned(), encoding)).expect("JSON");
        let floats =
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-1.0]}],"model":"m","#;
        assert_eq!(body(Encoding::Float), format!(r#"{floats}"usage":{{"prompt_tokens":3,"total_tokens":3}}}}"#));
        assert!(body(Encoding::Base64).contains(r#""embedding":"zczMPQAAgL8=""#), "{}", body(Encoding::Base64));
    }
}

//! `POST /v1/rerank`, and `/rerank` and `/v2/rerank`, as Jina, Cohere and vLLM have them.

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde::Serialize;
use serde_json::Value;
use slm_proto::v1::{RerankRequest, RerankResponse};

use super::{
    Shared, body, content_type,
    embeddings::named,
    error::ApiError,
    fields::{Fields, shown},
    params, reply, unsupported,
};
use crate::{access::table::Caller, dispatch::Call, metrics::Api};

/// Documents of a request; the worker has the same bound.
const DOCUMENTS_MAX: usize = 2048;

/// Names of the fields that are read.
const NAMES: [&str; 9] =
    ["model", "query", "documents", "top_n", "return_documents", "truncate", "metadata", "priority", "user"];

/// A request, and how to answer it.
#[derive(Debug)]
struct Asked {
    request: RerankRequest,
    return_documents: bool,
}

pub(super) fn routes() -> Router<Shared> {
    let paths = ["/v1/rerank", "/v2/rerank", "/rerank"];
    paths.into_iter().fold(Router::new(), |router, path| router.route(path, post(handle)))
}

async fn handle(
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
    let documents = if asked.return_documents { asked.request.documents.clone() } else { Vec::new() };
    let call = Call::new(caller, Api::http_rerank, None);
    let answer = dispatcher.encode(asked.request, &call).await.map_err(|refusal| named(refusal, "query", false))?;
    let expert = answer.expert.clone();
    let response = Json(Reply::of(answer, id.clone(), model, documents)).into_response();
    Ok(reply::identified(response, expert.as_ref(), &id))
}

fn parse(mut fields: Fields) -> Result<Asked, ApiError> {
    let query = fields.take::<String>("query")?.unwrap_or_default();
    if query.is_empty() {
        return Err(ApiError::param("query", "`query` is missing or empty; send a text"));
    }
    let request = RerankRequest {
        query,
        documents: documents(fields.raw("documents"))?,
        model: fields.take::<String>("model")?.unwrap_or_default(),
        // vLLM's default, which keeps all.
        top_n: fields.take::<u32>("top_n")?.filter(|top_n| *top_n > 0),
        truncate: fields.take("truncate")?.unwrap_or(false),
        metadata: params::metadata(&mut fields)?,
        priority: fields.take("priority")?.unwrap_or(0),
        ..RerankRequest::default()
    };
    let return_documents = fields.take("return_documents")?.unwrap_or(true);
    unsupported::refuse(fields, &NAMES)?;
    Ok(Asked { request, return_documents })
}

/// Strings, or objects with a `text`.
fn documents(value: Option<Value>) -> Result<Vec<String>, ApiError> {
    let wrong = |message: String| ApiError::param("documents", message);
    let items = match value {
        None => return Err(wrong("`documents` is missing; send a list of texts".to_owned())),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong(format!("`documents` has to be a list, not {}", shown(&other)))),
    };
    if items.is_empty() {
        return Err(wrong("`documents` is an empty list; send at least one text".to_owned()));
    }
    if items.len() > DOCUMENTS_MAX {
        let message = format!("`documents` holds {} texts; at most {DOCUMENTS_MAX} are taken at once", items.len());
        return Err(wrong(message));
    }
    items.into_iter().enumerate().map(|(index, item)| document(&format!("documents[{index}]"), item)).collect()
}

fn document(path: &str, item: Value) -> Result<String, ApiError> {
    let text = match item {
        Value::Object(mut object) if object.len() == 1 => object.remove("text").unwrap_or(Value::Object(object)),
        item => item,
    };
    match text {
        Value::String(text) if text.is_empty() => {
            Err(ApiError::param(path, format!("`{path}` is an empty string; send a text, or leave it out")))
        }
        Value::String(text) => Ok(text),
        other => {
            let message = format!("`{path}` has to be a string or an object with `text`, not {}", shown(&other));
            Err(ApiError::param(path, message))
        }
    }
}

#[cfg(fuzzing)]
pub(super) fn readable(fields: Fields) -> Result<(), ApiError> {
    parse(fields).map(drop)
}

/// The answer.
#[derive(Serialize)]
struct Reply {
    id: String,
    model: String,
    results: Vec<Item>,
    usage: Usage,
}

#[derive(Serialize)]
struct Item {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

#[derive(Serialize)]
struct Document {
    text: String,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl Reply {
    fn of(answer: RerankResponse, id: String, model: String, mut documents: Vec<String>) -> Self {
        let results = answer.results.into_iter().map(|result| {
            let index = result.index as usize;
            let document = documents.get_mut(index).map(|text| Document { text: std::mem::take(text) });
            Item { index, relevance_score: result.score, document }
        });
        let results = results.collect();
        let usage = Usage { prompt_tokens: answer.prompt_tokens, total_tokens: answer.prompt_tokens };
        Self { id, model, results, usage }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use slm_proto::v1::RankedDocument;

    use super::*;

    fn asked(body: &Value) -> Result<Asked, ApiError> {
        parse(Fields::new(body.as_object().expect("an object").clone()))
    }

    #[test]
    fn a_request_as_the_official_clients_send_it() {
        let body = json!({ "model": "m", "query": "q", "documents": ["a", { "text": "b" }], "top_n": 1 });
        let Asked { request, return_documents } = asked(&body).expect("good");
        assert_eq!((request.documents, request.top_n, return_documents), (vec!["a".into(), "b".into()], Some(1), true));
        let body = json!({ "query": "q", "documents": ["a"], "top_n": 0, "return_documents": false });
        let Asked { request, return_documents } = asked(&body).expect("good");
        assert_eq!((request.top_n, return_documents), (None, false));
    }

    #[test]
    fn refusals_name_the_parameter() {
        let many = vec!["a"; DOCUMENTS_MAX + 1];
        for (body, param, words) in [
            (json!({ "documents": ["a"] }), "query", "`query` is missing or empty"),
            (json!({ "query": "", "documents": ["a"] }), "query", "`query` is missing or empty"),
            (json!({ "query": ["q"], "documents": ["a"] }), "query", "has to be a string"),
            (json!({ "query": "q" }), "documents", "is missing"),
            (json!({ "query": "q", "documents": [] }), "documents", "is an empty list"),
            (json!({ "query": "q", "documents": "a" }), "documents", "has to be a list"),
            (json!({ "query": "q", "documents": many }), "documents", "holds 2049 texts; at most 2048"),
            (json!({ "query": "q", "documents": ["a", ""] }), "documents[1]", "is an empty string"),
            (json!({ "query": "q", "documents": ["a", 1] }), "documents[1]", "an object with `text`, not 1"),
            (json!({ "query": "q", "documents": [{ "image": "x" }] }), "documents[0]", "not an object"),
            (json!({ "query": "q", "documents": ["a"], "top_n": -1 }), "top_n", "an integer"),
            (json!({ "query": "q", "documents": ["a"], "top_m": 1 }), "top_m", "did you mean `top_n`"),
        ] {
            let error = asked(&body).expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param), "{}", error.body.message);
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }

    #[test]
    fn an_answer_has_the_documents_of_its_results() {
        let results = [(1, 0.5), (0, 0.25)].map(|(index, score)| RankedDocument { index, score });
        let answer = RerankResponse { results: results.into(), prompt_tokens: 7, ..RerankResponse::default() };
        let reply = |documents: &[&str]| {
            let documents = documents.iter().map(|text| (*text).to_owned()).collect();
            serde_json::to_value(Reply::of(answer.clone(), "r".into(), "m".into(), documents)).expect("JSON")
        };
        let expected = json!({ "id": "r", "model": "m", "usage": { "prompt_tokens": 7, "total_tokens": 7 }, "results": [
            { "index": 1, "relevance_score": 0.5, "document": { "text": "b" } },
            { "index": 0, "relevance_score": 0.25, "document": { "text": "a" } },
        ] });
        assert_eq!(reply(&["a", "b"]), expected);
        assert_eq!(reply(&[])["results"][0], json!({ "index": 1, "relevance_score": 0.5 }));
    }
}

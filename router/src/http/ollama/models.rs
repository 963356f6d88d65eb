//! The models of the swarm, as Ollama lists its own.

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use slm_proto::v1::ModelInfo;

use super::{reply::Kind, without_tag};
use crate::{
    access::table::Caller,
    catalog,
    http::{Shared, body, error::ApiError, fields::Fields, plain_error::PlainError},
    refusal::Refusal,
    resolve::resolve,
};

/// A swarm has no such date.
const NEVER: &str = "1970-01-01T00:00:00Z";

/// `GET /api/tags`: every name that a request may carry.
pub(super) async fn tags(State(dispatcher): State<Shared>, Extension(caller): Extension<Caller>) -> Json<Value> {
    let models: Vec<Value> = catalog::catalog(&dispatcher.view(), &caller).iter().map(listed).collect();
    Json(json!({ "models": models }))
}

/// `GET /api/ps`: those that workers have loaded.
pub(super) async fn ps(State(dispatcher): State<Shared>, Extension(caller): Extension<Caller>) -> Json<Value> {
    let catalog = catalog::catalog(&dispatcher.view(), &caller);
    let loaded = catalog.iter().filter(|model| model.ready && model.kind != "SwarmRoute").map(|model| {
        let mut model_json = listed(model);
        model_json["size_vram"] = 0.into();
        // It stays.
        model_json["expires_at"] = "9999-12-31T23:59:59Z".into();
        model_json
    });
    Json(json!({ "models": loaded.collect::<Vec<_>>() }))
}

/// `POST /api/show`.
pub(super) async fn show(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Value>, PlainError> {
    let named = |mut fields: Fields| {
        let name = fields.take::<String>("model")?.or(fields.take::<String>("name")?);
        name.ok_or_else(|| ApiError::param("model", "`model` is missing; name one of /api/tags"))
    };
    let (name, _hold) = body::read(body, &dispatcher, &caller, named).await?;
    let info = find(&dispatcher, &caller, without_tag(&name))?;
    Ok(Json(json!({
        "modified_at": NEVER,
        "details": details(&info),
        "model_info": { "general.basename": info.name, "slm.digest": info.digest, "slm.description": info.description },
        "capabilities": ["completion"],
        "modelfile": "",
        "parameters": "",
        "template": "",
    })))
}

/// The answer to a request without a prompt, which makes Ollama load a model: it is there, or is refused.
pub(super) fn loaded(dispatcher: &Shared, caller: &Caller, name: &str, kind: Kind) -> Result<Response, ApiError> {
    find(dispatcher, caller, name)?;
    let mut line =
        json!({ "model": name, "created_at": Timestamp::now().to_string(), "done": true, "done_reason": "load" });
    match kind {
        Kind::Chat => line["message"] = json!({ "role": "assistant", "content": "" }),
        Kind::Generate => line["response"] = "".into(),
    }
    Ok(Json(line).into_response())
}

fn find(dispatcher: &Shared, caller: &Caller, name: &str) -> Result<ModelInfo, ApiError> {
    let view = dispatcher.view();
    resolve(&view, name, caller)?;
    let info = catalog::entry(&view, name);
    Ok(info.ok_or(Refusal::UnknownModel { name: name.to_owned(), nearest: Vec::new() })?)
}

fn listed(model: &ModelInfo) -> Value {
    json!({
        "name": model.name,
        "model": model.name,
        "modified_at": NEVER,
        "size": model.bytes,
        "digest": model.digest.trim_start_matches("sha256:"),
        "details": details(model),
    })
}

/// `family` is the kind of object that has the name; `parent_model` the base of an adapter.
fn details(model: &ModelInfo) -> Value {
    json!({
        "parent_model": model.model,
        "format": "slm",
        "family": model.kind,
        "families": [model.kind],
        "parameter_size": "",
        "quantization_level": model.flavour,
    })
}

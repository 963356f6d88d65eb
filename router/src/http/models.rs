//! `GET /v1/models`.

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde_json::{Value, json};
use slm_proto::v1::ModelInfo;

use super::{Shared, error::ApiError};
use crate::{access::table::Caller, catalog, refusal::Refusal, resolve::resolve};

pub(super) async fn list(State(dispatcher): State<Shared>, Extension(caller): Extension<Caller>) -> Json<Value> {
    let models: Vec<Value> = catalog::catalog(&dispatcher.view(), &caller).into_iter().map(model).collect();
    Json(json!({ "object": "list", "data": models }))
}

pub(super) async fn one(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    // It is not text, so it is nobody's name.
    let Ok(Path(id)) = id else { return Err(ApiError::no_such_model()) };
    let view = dispatcher.view();
    resolve(&view, &id, &caller)?;
    let info = catalog::entry(&view, &id).ok_or(Refusal::UnknownModel { name: id, nearest: Vec::new() })?;
    Ok(Json(model(info)))
}

fn model(info: ModelInfo) -> Value {
    json!({
        "id": info.name,
        "object": "model",
        // OpenAI's field; a swarm has no such date.
        "created": 0,
        "owned_by": "slm-swarm",
        "x_slm": {
            "kind": info.kind,
            "model": info.model,
            "description": info.description,
            "ready": info.ready,
            "digest": info.digest,
            "workers": info.workers,
        },
    })
}

//! The Open Inference Protocol over HTTP: `/v2`, with Triton's `/generate`, `/generate_stream`, repository index and binary tensors.
//!
//! `request` reads bodies, `reply` writes answers. What tensors mean is said in
//! [`crate::inference`].

mod reply;
mod request;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use self::request::{Asked, Reply};
use super::{Shared, body, content_type, error::ApiError, fields::Fields, plain_error::PlainError, reply::request_id};
use crate::{
    access::table::Caller,
    dispatch::Call,
    events::Answer,
    inference::{self, AskedVectors, PLATFORM, TensorDescription, VERSION},
    metrics::Api,
    readiness::readiness,
};

/// Begin of every path of this API.
pub(super) const PREFIX: &str = "/v2";
/// Bytes of the JSON of a body whose tensors are binary.
const JSON_BYTES: &str = "inference-header-content-length";

pub(super) fn routes() -> Router<Shared> {
    let model =
        |call: &str| [format!("/v2/models/{{name}}{call}"), format!("/v2/models/{{name}}/versions/{{version}}{call}")];
    let mut routes = Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(|| async { Json(json!({ "live": true })) }))
        .route("/v2/health/ready", get(server_ready))
        .route("/v2/repository/index", post(index));
    for path in model("") {
        routes = routes.route(&path, get(metadata));
    }
    for path in model("/ready") {
        routes = routes.route(&path, get(model_ready));
    }
    for path in model("/infer") {
        routes = routes.route(&path, post(infer));
    }
    for path in model("/generate") {
        routes = routes.route(&path, post(generate));
    }
    for path in model("/generate_stream") {
        routes = routes.route(&path, post(generate_stream));
    }
    routes
}

/// The model of a path, in its one version.
#[derive(serde::Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    version: String,
}

async fn server() -> Json<Value> {
    Json(json!({
        "name": PLATFORM,
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "model_repository", "generate"],
    }))
}

async fn server_ready(State(dispatcher): State<Shared>) -> Response {
    let ready = dispatcher.gate.open(&readiness(&dispatcher.view()));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready }))).into_response()
}

async fn metadata(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(model): Path<Named>,
) -> Result<Json<Value>, PlainError> {
    inference::same_version(&model.version)?;
    inference::ready(&dispatcher.view(), &caller, &model.name).map_err(ApiError::from)?;
    let (inputs, outputs) = inference::describe(&dispatcher.view(), &model.name);
    let described = |tensor: &TensorDescription| json!({ "name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape() });
    Ok(Json(json!({
        "name": model.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": inputs.iter().map(described).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(described).collect::<Vec<_>>(),
    })))
}

async fn model_ready(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(model): Path<Named>,
) -> Result<Response, PlainError> {
    inference::same_version(&model.version)?;
    let ready = inference::ready(&dispatcher.view(), &caller, &model.name).map_err(ApiError::from)?;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(json!({ "name": model.name, "ready": ready }))).into_response())
}

async fn index(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Value>, PlainError> {
    // Triton's clients send nothing at all where they have nothing to say.
    let only_ready = |bytes: Vec<u8>| {
        let mut fields = if bytes.is_empty() { Fields::new(serde_json::Map::new()) } else { body::parse(&bytes)? };
        Ok(fields.take::<bool>("ready")?.unwrap_or(false))
    };
    let (only_ready, _hold) = body::read_bytes(body, &dispatcher, &caller, only_ready).await?;
    let models = inference::index(&dispatcher.view(), &caller, only_ready);
    let models = models.into_iter().map(|model| {
        let (state, reason) = if model.ready { ("READY", "") } else { ("UNAVAILABLE", "no worker serves it now") };
        json!({ "name": model.name, "version": VERSION, "state": state, "reason": reason })
    });
    Ok(Json(models.collect()))
}

async fn infer(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(model): Path<Named>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PlainError> {
    let json_bytes = request::json_bytes(&headers)?;
    if json_bytes.is_none() {
        content_type::check_pages(&headers)?;
    }
    inference::same_version(&model.version)?;
    if inference::embeds(&dispatcher.view(), &model.name) {
        return Ok(embed(&dispatcher, caller, model.name, (&headers, json_bytes), body).await?);
    }
    let texts_max = dispatcher.limits.prompts_max;
    let parse = move |bytes: Vec<u8>| request::infer(&bytes, json_bytes)?.asked(texts_max);
    let (asked, hold) = body::read_bytes(body, &dispatcher, &caller, parse).await?;
    if asked.stream == Some(true) {
        let message = "`stream` is for /generate_stream, and for ModelStreamInfer over gRPC; leave it out here";
        return Err(ApiError::param("stream", message).into());
    }
    let (answers, reply) =
        begin(&dispatcher, (asked, hold), model.name, &headers, (caller, Api::inference_http_infer)).await?;
    Ok(reply::tensors(answers, &reply).await?)
}

/// The vectors of texts.
async fn embed(
    dispatcher: &Shared,
    caller: Caller,
    model: String,
    (headers, json_bytes): (&HeaderMap, Option<usize>),
    body: Body,
) -> Result<Response, ApiError> {
    let parse = move |bytes: Vec<u8>| request::infer(&bytes, json_bytes)?.asked_vectors();
    let ((AskedVectors { mut request, timeout }, reply), _hold) =
        body::read_bytes(body, dispatcher, &caller, parse).await?;
    request.model.clone_from(&model);
    if request.request_id.is_empty() {
        request.request_id = request_id(headers);
    }
    let deadline = timeout.and_then(|timeout| tokio::time::Instant::now().checked_add(timeout));
    let call = Call::new(caller, Api::inference_http_infer, deadline);
    let answer = inference::embed(dispatcher, request, &call).await?;
    Ok(reply::vectors(answer, &Reply { model, ..reply }))
}

async fn generate(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(model): Path<Named>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PlainError> {
    let (asked, hold) = read_generate(&dispatcher, &caller, &model, &headers, body).await?;
    if asked.stream == Some(true) {
        return Err(ApiError::param("stream", "`stream` is for /generate_stream; leave it out here").into());
    }
    let (answers, reply) =
        begin(&dispatcher, (asked, hold), model.name, &headers, (caller, Api::inference_http_generate)).await?;
    Ok(reply::object(answers, &reply).await?)
}

async fn generate_stream(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(model): Path<Named>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PlainError> {
    let (asked, hold) = read_generate(&dispatcher, &caller, &model, &headers, body).await?;
    let streamed = asked.stream.unwrap_or(true);
    if asked.requests.len() > 1 {
        return Err(ApiError::param("text_input", "a stream answers one text; send one").into());
    }
    let (answers, reply) =
        begin(&dispatcher, (asked, hold), model.name, &headers, (caller, Api::inference_http_generate)).await?;
    Ok(if streamed { reply::events(answers, reply) } else { reply::one_event(answers, &reply).await? })
}

async fn read_generate(
    dispatcher: &Shared,
    caller: &Caller,
    model: &Named,
    headers: &HeaderMap,
    body: Body,
) -> Result<body::Read<Asked>, ApiError> {
    content_type::check_pages(headers)?;
    inference::same_version(&model.version)?;
    let texts_max = dispatcher.limits.prompts_max;
    body::read(body, dispatcher, caller, move |fields| request::generate(fields)?.asked(texts_max)).await
}

/// Begins the answers; the memory of their requests is free once workers have them.
async fn begin(
    dispatcher: &Shared,
    (mut asked, hold): body::Read<Asked>,
    model: String,
    headers: &HeaderMap,
    (caller, api): (Caller, Api),
) -> Result<(Vec<Answer>, Reply), ApiError> {
    for request in &mut asked.requests {
        request.model.clone_from(&model);
        if request.request_id.is_empty() {
            request.request_id = request_id(headers);
        }
    }
    let deadline = asked.timeout.and_then(|timeout| tokio::time::Instant::now().checked_add(timeout));
    let answers = inference::begin(dispatcher, &asked.requests, &Call::new(caller, api, deadline)).await?;
    drop(hold);
    Ok((answers, Reply { model, ..asked.reply }))
}

#[cfg(fuzzing)]
pub(super) mod readable {
    use super::{ApiError, Fields, request};

    pub(in crate::http) fn generate(fields: Fields, texts_max: usize) -> Result<(), ApiError> {
        request::generate(fields)?.asked(texts_max).map(drop)
    }

    pub(in crate::http) fn infer(body: &[u8], json_bytes: Option<usize>, texts_max: usize) -> Result<(), ApiError> {
        request::infer(body, json_bytes)?.asked(texts_max).map(drop)
    }
}

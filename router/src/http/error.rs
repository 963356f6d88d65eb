//! Refusals in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use slm_proto::trailers;
use tonic::{Code, Status};

use crate::{access::bearer::Unauthorized, refusal::Refusal};

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) body: ErrorBody,
    retry_after_seconds: Option<u64>,
    /// The error of authentication.
    unauthorized: Option<Unauthorized>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorBody {
    pub(crate) message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<String>,
}

/// The body of a refusal: of a response, or of an event in a stream.
#[derive(Serialize)]
pub(crate) struct ErrorEnvelope<'e> {
    pub(crate) error: &'e ErrorBody,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let body = ErrorBody { message: message.into(), kind, param: None, code: None };
        Self { status, body, retry_after_seconds: None, unauthorized: None }
    }

    /// A parameter that is wrong.
    pub(crate) fn param(param: &str, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        error.body.param = Some(param.to_owned());
        error
    }

    /// A request that is no request.
    pub(crate) fn body(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", message)
    }

    /// The same of a field within the object `path`.
    pub(crate) fn within(mut self, path: &str) -> Self {
        if let Some(param) = self.body.param.take() {
            let whole = format!("{path}.{param}");
            self.body.message = self.body.message.replacen(&format!("`{param}`"), &format!("`{whole}`"), 1);
            self.body.param = Some(whole);
        }
        self
    }

    pub(crate) fn code(mut self, code: &str) -> Self {
        self.body.code = Some(code.to_owned());
        self
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        Self::body(
            StatusCode::NOT_FOUND,
            format!("no endpoint at {path}; there are /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/rerank, /v1/classify, /v1/responses, /v1/messages, /tokenize, /detokenize, /apply_template, /api/chat, /api/generate, /api/embed, /api/tags, /api/ps, /api/show, /api/version and /v2"),
        )
        .code("unknown_url")
    }

    pub(crate) fn no_such_model() -> Self {
        let mut error = Self::body(StatusCode::NOT_FOUND, "the name of a model is UTF-8; no model has this one");
        error.body.param = Some("model".to_owned());
        error.code("model_not_found")
    }

    pub(crate) fn wrong_method(path: &str) -> Self {
        Self::body(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not take this method"))
            .code("method_not_allowed")
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }
}

/// Machine-readable part of a worker's refusal.
pub(crate) struct Refused {
    pub(crate) field: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) is_too_long: bool,
}

impl Refused {
    /// `None` for a refusal that is not a worker's judgement of the request.
    pub(crate) fn of(refusal: &Refusal) -> Option<Self> {
        let Refusal::Worker(status) = refusal else { return None };
        if status.code() != Code::InvalidArgument {
            return None;
        }
        let code = trailer(status, trailers::ERROR_CODE);
        Some(Self {
            field: trailer(status, trailers::ERROR_FIELD),
            reason: trailer(status, trailers::REASON),
            is_too_long: code.as_deref() == Some(trailers::CONTEXT_LENGTH_EXCEEDED),
        })
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let mut error = match refusal.code() {
            Code::NotFound => {
                let mut error =
                    Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("model_not_found");
                error.body.param = Some("model".to_owned());
                error
            }
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
            }
            Code::ResourceExhausted => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).code("overloaded")
            }
            Code::Unavailable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message).code("unavailable")
            }
            Code::PermissionDenied => {
                Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message).code("data_policy")
            }
            Code::DeadlineExceeded => Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", message).code("timeout"),
            Code::Unimplemented => Self::new(StatusCode::NOT_IMPLEMENTED, "server_error", message),
            _ => Self::internal(message),
        };
        match &refusal {
            Refusal::NoModel | Refusal::External { .. } => error.body.param = Some("model".to_owned()),
            Refusal::MaxTokens { .. } => error.body.param = Some("max_tokens".to_owned()),
            Refusal::RateLimited(_) => error = error.code("rate_limit_exceeded"),
            Refusal::NotLoadable(refused) => {
                error.body.param = Some("model".to_owned());
                error = error.code(refused.code());
            }
            Refusal::Metadata { .. } | Refusal::UnknownPolicy(_) => error.body.param = Some("metadata".to_owned()),
            Refusal::OutOfScope { .. } => error = error.code(slm_proto::trailers::OUT_OF_SCOPE),
            Refusal::Undecided { passes: false, .. } => error = error.code("undecided"),
            Refusal::NotRetrieved { .. } => error = error.code("not_retrieved"),
            Refusal::NoPlace { field, .. } => error.body.param = Some((*field).to_owned()),
            Refusal::Worker(status) => {
                error.body.param = trailer(status, trailers::ERROR_FIELD).or(error.body.param);
                error.body.code = trailer(status, trailers::ERROR_CODE).or(error.body.code);
            }
            _ => {}
        }
        // Rounded up: who comes earlier is refused again.
        error.retry_after_seconds =
            refusal.retry_after().map(|delay| delay.as_secs_f64().ceil() as u64).map(|s| s.max(1));
        error
    }
}

impl From<Unauthorized> for ApiError {
    fn from(unauthorized: Unauthorized) -> Self {
        let mut error = Self::body(StatusCode::UNAUTHORIZED, unauthorized.to_string());
        error.unauthorized = Some(unauthorized);
        error.code("invalid_api_key")
    }
}

fn trailer(status: &Status, key: &str) -> Option<String> {
    status.metadata().get(key)?.to_str().ok().map(str::to_owned)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorEnvelope { error: &self.body })).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(unauthorized) = self.unauthorized {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(unauthorized.challenge()));
        }
        response
    }
}

/// The response to a refusal with a body of another shape. Status and headers are the same for every API.
pub(crate) fn with_body(error: ApiError, body: impl IntoResponse) -> Response {
    let (mut parts, _) = error.into_response().into_parts();
    let (body_parts, body) = body.into_response().into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.extend(body_parts.headers);
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::ExpertKind;

    use super::*;
    use crate::absence::NotLoadable;

    #[test]
    fn codes() {
        let worker = |code, message: &str| Refusal::Worker(Status::new(code, message));
        let not_loadable =
            |kind| Refusal::NotLoadable(NotLoadable { kind, name: "x".into(), why: "no tensors".into() });
        let mut long = Status::invalid_argument("the prompt has 9 tokens, but the context only 8");
        long.metadata_mut().insert(trailers::ERROR_CODE, "context_length_exceeded".parse().expect("a word"));
        long.metadata_mut().insert(trailers::ERROR_FIELD, "messages".parse().expect("a word"));
        let cases = [
            (
                Refusal::UnknownModel { name: "x".into(), nearest: vec![] },
                404,
                Some("model"),
                Some("model_not_found"),
                None,
            ),
            (Refusal::NoModel, 400, Some("model"), None, None),
            (not_loadable(ExpertKind::LoraAdapter), 400, Some("model"), Some("adapter_not_loadable"), None),
            (not_loadable(ExpertKind::SlmModel), 400, Some("model"), Some("model_not_loadable"), None),
            (Refusal::Worker(long), 400, Some("messages"), Some("context_length_exceeded"), None),
            (worker(Code::ResourceExhausted, "full"), 429, None, Some("overloaded"), Some(1)),
            (worker(Code::Unavailable, "gone"), 503, None, Some("unavailable"), Some(1)),
            (worker(Code::Internal, "broken"), 500, None, None, None),
            (Refusal::DeadlineExceeded, 504, None, Some("timeout"), None),
        ];
        for (refusal, status, param, code, retry_after) in cases {
            let error = ApiError::from(refusal);
            assert_eq!(error.status.as_u16(), status);
            assert_eq!((error.body.param.as_deref(), error.body.code.as_deref()), (param, code), "{status}");
            assert_eq!(error.retry_after_seconds, retry_after, "{status}");
        }
    }
}

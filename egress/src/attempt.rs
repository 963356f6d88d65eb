//! One attempt of a call, and what its failure means.

use std::time::Duration;

use reqwest::{Response, StatusCode, header};
use serde_json::Value;
use slm_redact::Vault;
use tokio::time::timeout;
use tonic::Status;

use crate::{
    answer::{begin, reported},
    model::Model,
};

/// The longest `Retry-After` that is waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A failed attempt.
pub(crate) struct Failure {
    pub(crate) status: Status,
    /// Whether another attempt may succeed, and after how long.
    pub(crate) again: Option<Option<Duration>>,
    pub(crate) blame: Blame,
}

/// What a failure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The request, or a moment.
    Nobody,
    /// The model.
    Model,
    /// The model, whose token may be an old one.
    Token,
}

/// Sends a request once, until the headers of an answer are here.
pub(crate) async fn send(model: &Model, body: String, vault: Option<&Vault>) -> Result<Response, Failure> {
    let request = model.client.post(model.url()).header(header::CONTENT_TYPE, "application/json").body(body);
    let request = request.header(header::ACCEPT, "text/event-stream");
    let request = match &model.token {
        Some(token) => request.bearer_auth(&token.0),
        None => request,
    };
    let passing = |status| Failure { status, again: Some(None), blame: Blame::Model };
    let sent = timeout(model.silence(), request.send()).await;
    let response = match sent {
        // Waiting as long again would be too long.
        Err(_) => return Err(Failure { status: silent(model), again: None, blame: Blame::Model }),
        Ok(Err(error)) => return Err(passing(broken(model, &slm_tls::cause::innermost(&error.without_url())))),
        Ok(Ok(response)) => response,
    };
    if response.status().is_success() {
        return Ok(response);
    }
    Err(refused(model, response, vault).await)
}

/// What an answer with an error means.
async fn refused(model: &Model, mut response: Response, vault: Option<&Vault>) -> Failure {
    let code = response.status();
    let wait = response.headers().get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
    let wait = wait.map(Duration::from_secs);
    let mut text = Vec::new();
    while let Ok(Ok(Some(chunk))) = timeout(model.silence(), response.chunk()).await {
        text.extend_from_slice(&chunk);
        if text.len() > ERROR_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let text = match vault {
        Some(vault) => vault.restore(&text),
        None => text,
    };
    let said = serde_json::from_str::<Value>(&text).map_or_else(
        |_| begin(&text),
        |error| if error["error"].is_null() { reported(&error) } else { reported(&error["error"]) },
    );
    let Model { name, .. } = model;
    let answers = format!("the endpoint of the ExternalModel `{name}` answers {}", code.as_u16());
    let says = format!("{answers}: {said}");
    match code {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
            Failure { status: Status::invalid_argument(says), again: None, blame: Blame::Nobody }
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let again = wait.is_none_or(|wait| wait <= RETRY_AFTER_MAX).then_some(wait);
            Failure { status: Status::resource_exhausted(answers), again, blame: Blame::Nobody }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let says =
                format!("the endpoint of the ExternalModel `{name}` refuses its credentials ({})", code.as_u16());
            Failure { status: Status::unavailable(says), again: None, blame: Blame::Token }
        }
        code if code.is_server_error() => {
            let wait = wait.filter(|wait| *wait <= RETRY_AFTER_MAX);
            Failure { status: Status::unavailable(answers), again: Some(wait), blame: Blame::Model }
        }
        // Its words are for those who asked wrongly: what failed there is told to logs on the way.
        _ => Failure { status: Status::unavailable(answers), again: None, blame: Blame::Model },
    }
}

pub(crate) fn silent(model: &Model) -> Status {
    Status::unavailable(format!(
        "the endpoint of the ExternalModel `{}` has sent nothing for {} s",
        model.name, model.spec.timeout_seconds
    ))
}

pub(crate) fn broken(model: &Model, error: &dyn std::fmt::Display) -> Status {
    Status::unavailable(format!("the ExternalModel `{}`: {error}", model.name))
}

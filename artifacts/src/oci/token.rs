//! Answers to a registry's 401: basic authentication, or a token from its token server.

use http_auth::{ChallengeRef, parse_challenges};
use reqwest::{RequestBuilder, StatusCode, Url, header::HeaderValue};
use serde::Deserialize;

use super::registry::Registry;
use crate::{
    FetchError,
    authorization::authorization,
    credentials::Secret,
    http::{retry::Fault, status},
};

const TOKEN_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Authorization for further requests; `None` if no credentials of ours can help.
pub(super) async fn answer(registry: &Registry<'_>, challenges: &[String]) -> Result<Option<HeaderValue>, Fault> {
    let uri = registry.request.uri;
    let parsed: Vec<ChallengeRef<'_>> =
        challenges.iter().filter_map(|text| parse_challenges(text).ok()).flatten().collect();
    let of = |scheme: &str| parsed.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
    match (&registry.secret, of("bearer"), of("basic")) {
        // It was sent already and not accepted.
        (Some(Secret::Bearer(_)), _, _) => Ok(None),
        (_, Some(challenge), _) => {
            let token = token(registry, challenge).await?;
            Ok(Some(authorization(uri, &Secret::Bearer(token))?))
        }
        (Some(secret @ Secret::Basic { .. }), None, Some(_)) => Ok(Some(authorization(uri, secret)?)),
        _ => Ok(None),
    }
}

async fn token(registry: &Registry<'_>, challenge: &ChallengeRef<'_>) -> Result<String, Fault> {
    let uri = registry.request.uri;
    let parameter = |name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    let refused = |message: String| FetchError::Refused { uri: uri.to_owned(), message };
    let realm = parameter("realm").unwrap_or_default();
    let mut url =
        Url::parse(&realm).map_err(|error| refused(format!("the registry's token server `{realm}`: {error}")))?;
    // A password is sent there, so it needs TLS.
    registry.request.tools.plain.check(uri, &url)?;
    let scope = parameter("scope").unwrap_or_else(|| format!("repository:{}:pull", registry.repository));
    let mut asked = vec![("scope", scope)];
    asked.extend(parameter("service").map(|service| ("service", service)));
    let request = ask(registry, &mut url, asked)?;
    let response = request.send().await.map_err(|error| status::no_answer(uri, &error))?;
    if response.status() != StatusCode::OK {
        return Err(status::fault(uri, "token server of the registry", &response));
    }
    let body = registry.body(response, TOKEN_BYTES_MAX).await?;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|_| refused("the registry's token server does not answer with a token".to_owned()))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    token.ok_or_else(|| refused("the registry's token server does not answer with a token".to_owned()).into())
}

fn ask(registry: &Registry<'_>, url: &mut Url, asked: Vec<(&str, String)>) -> Result<RequestBuilder, FetchError> {
    let client = &registry.request.tools.client;
    if let Some(Secret::Identity(refresh)) = &registry.secret {
        let mut form = asked;
        form.push(("grant_type", "refresh_token".to_owned()));
        form.push(("refresh_token", refresh.clone()));
        form.push(("client_id", "slm".to_owned()));
        return Ok(client.post(url.clone()).form(&form));
    }
    url.query_pairs_mut().extend_pairs(asked);
    let request = client.get(url.clone());
    Ok(match &registry.secret {
        Some(Secret::Basic { username, password }) => request.basic_auth(username, Some(password)),
        _ => request,
    })
}

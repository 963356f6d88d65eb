//! Fetching of the base model at start, and of adapters on request.

use std::{fs, path::Path};

use serde::Deserialize;
use slm_artifacts::{Artifact, CredentialError, Credentials, FetchError, Progress, Source, Store};
use slm_proto::v1::LoadAdapterRequest;

/// An adapter's artifact, leased from the cache.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) artifact: Artifact,
    /// Digest that the contents must have, if it was not verified by the fetch.
    pub(crate) contents: Option<String>,
}

/// Fetches the adapter of a load request.
pub(crate) async fn adapter(store: &Store, request: &LoadAdapterRequest) -> Result<Fetched, FetchError> {
    let credentials = credentials(&request.credentials)
        .map_err(|error| FetchError::Unauthorized { uri: request.source.clone(), message: error.to_string() })?;
    let digest = Some(request.digest.clone()).filter(|digest| !digest.is_empty());
    let source = Source { uri: request.source.clone(), digest: digest.clone(), credentials };
    let artifact = store.fetch(&source, &mut |_| {}).await?;
    let contents = digest.filter(|_| artifact.digest().is_none());
    Ok(Fetched { artifact, contents })
}

/// Fetches the base model.
pub(crate) async fn model(
    store: &Store,
    source: &Source,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Fetched, FetchError> {
    let artifact = store.fetch(source, &mut |told| progress(told)).await?;
    if artifact.is_stale() {
        tracing::warn!(source = source.shown(), "the server is unreachable; using the last known version");
    }
    let contents = source.digest.clone().filter(|_| artifact.digest().is_none());
    Ok(Fetched { artifact, contents })
}

/// Credentials of a request or a Secret: a Docker configuration, or an object with `token`, or with `username` and
/// `password`. `None` if empty.
fn credentials(json: &str) -> Result<Option<Credentials>, CredentialError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Plain {
        token: Option<String>,
        username: Option<String>,
        password: Option<String>,
    }
    if json.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str::<Plain>(json) {
        Ok(Plain { token: Some(token), .. }) => Ok(Some(Credentials::Bearer(token))),
        Ok(Plain { username: Some(username), password: Some(password), .. }) => {
            Ok(Some(Credentials::Basic { username, password }))
        }
        _ => Credentials::from_docker_config(json).map(Some),
    }
}

/// Credentials of a mounted Secret: a folder with one file for each key.
///
/// # Errors
/// A file cannot be read, or the content is invalid.
pub fn mounted(folder: &Path) -> Result<Option<Credentials>, String> {
    let read = |key: &str| match fs::read_to_string(folder.join(key)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", folder.join(key).display())),
    };
    if let Some(config) = read(".dockerconfigjson")? {
        return Credentials::from_docker_config(&config).map(Some).map_err(|error| error.to_string());
    }
    match (read("token")?, read("username")?, read("password")?) {
        (Some(token), _, _) => Ok(Some(Credentials::Bearer(token))),
        (None, Some(username), Some(password)) => Ok(Some(Credentials::Basic { username, password })),
        _ => Err(format!("{}: has neither .dockerconfigjson, nor token, nor username and password", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_every_form() {
        assert!(credentials("").expect("none").is_none());
        assert!(matches!(credentials("{\"token\":\"t\"}"), Ok(Some(Credentials::Bearer(token))) if token == "t"));
        let basic = credentials("{\"username\":\"u\",\"password\":\"p\"}");
        assert!(matches!(basic, Ok(Some(Credentials::Basic { .. }))));
        assert!(matches!(credentials("{\"auths\":{}}"), Ok(Some(Credentials::Hosts(_)))));
        assert!(credentials("{\"user\":1}").is_err());
    }
}

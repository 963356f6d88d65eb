//! Tokens of models outside, from Secrets: those of a cluster, or those of a file.
//!
//! Whoever may write an ExternalModel names both a host and a Secret. To keep a Secret from being sent to a host of their own, the
//! Secret names its hosts itself ([`HOSTS`](slm_crds::hosts::HOSTS)).

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use slm_crds::{ExternalModelSpec, hosts, secret_file};
use tokio::time::timeout;

/// Key of the token in a Secret.
const TOKEN: &str = "token";
/// Time for a Secret to be read.
const READ_MAX: Duration = Duration::from_secs(10);

/// Where Secrets are.
#[derive(Clone, Debug, Default)]
pub enum Secrets {
    /// Nowhere.
    #[default]
    None,
    /// In this file, as manifests.
    File(PathBuf),
    /// In a namespace of a cluster.
    Cluster(ClusterSecrets),
}

/// The Secrets of a namespace.
#[derive(Clone)]
pub struct ClusterSecrets {
    /// A client of the cluster.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

impl fmt::Debug for ClusterSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClusterSecrets").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Untold {
    /// Nobody knows: it could not be read now.
    Unread(String),
    /// It is not there, or not for this endpoint.
    Refused(String),
}

/// A bearer token. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) String);

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

impl Secrets {
    /// The token of the Secret `name`, for the endpoint of `spec`.
    ///
    /// # Errors
    /// Names the Secret and what it lacks.
    pub(crate) async fn token(&self, name: &str, spec: &ExternalModelSpec) -> Result<Token, Untold> {
        let read = timeout(READ_MAX, self.secret(name)).await;
        let secret =
            read.unwrap_or_else(|_| Err(Untold::Unread(format!("Secret {name}: reading it takes too long"))))?;
        token(name, &secret, spec).map_err(Untold::Refused)
    }

    async fn secret(&self, name: &str) -> Result<Secret, Untold> {
        let refused = |why: String| Err(Untold::Refused(why));
        match self {
            Self::None => {
                refused(format!("Secret {name}: there are no Secrets here; name a file of them with --secrets"))
            }
            Self::File(path) => {
                let found = in_file(path, name).await.map_err(Untold::Unread)?;
                found.ok_or_else(|| Untold::Refused(format!("{}: no Secret is named {name}", path.display())))
            }
            Self::Cluster(ClusterSecrets { client, namespace }) => {
                let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
                match secrets.get_opt(name).await {
                    Ok(Some(secret)) => Ok(secret),
                    Ok(None) => refused(format!("Secret {name} does not exist; create it, or remove secretRef")),
                    Err(kube::Error::Api(status)) if status.code == 403 => refused(format!(
                        "Secret {name}: {}; list it in the chart's egress.credentials.secretNames",
                        status.message
                    )),
                    Err(error) => Err(Untold::Unread(format!("Secret {name}: {error}"))),
                }
            }
        }
    }
}

/// The Secret of that name, if the file has one.
async fn in_file(path: &Path, name: &str) -> Result<Option<Secret>, String> {
    let (file, secret) = (path.to_owned(), name.to_owned());
    let found = tokio::task::spawn_blocking(move || secret_file::find(&file, &secret)).await;
    found.map_err(|error| error.to_string())?
}

fn token(name: &str, secret: &Secret, spec: &ExternalModelSpec) -> Result<Token, String> {
    let token = secret_file::entry(secret, TOKEN).map(|token| token.trim().to_owned()).unwrap_or_default();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("Secret {name}: its `token` is missing, or is no printable word"));
    }
    hosts::allowed_outside(secret_file::hosts(secret), &spec.url, spec.proxy.as_deref())
        .map_err(|why| format!("Secret {name}: {why}"))?;
    Ok(Token(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn secrets_of_a_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, annotations: {slmswarm.io/hosts: api.example.com}}\n\
                    stringData: {token: s3cret}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\ndata: {token: czNjcmV0}\n";
        std::fs::write(file.path(), text).expect("a file");
        let secrets = Secrets::File(file.path().to_owned());
        let read = |name: &'static str, url: &'static str| {
            let secrets = secrets.clone();
            let spec = serde_json::json!({ "url": url, "model": "gpt" });
            let spec: ExternalModelSpec = serde_json::from_value(spec).expect("a spec");
            async move {
                secrets.token(name, &spec).await.map(|token| token.0).map_err(|untold| match untold {
                    Untold::Refused(why) | Untold::Unread(why) => why,
                })
            }
        };
        assert_eq!(read("a", "https://api.example.com/v1").await, Ok("s3cret".to_owned()));
        let elsewhere = read("a", "https://evil.example.com/v1").await.expect_err("another host");
        assert!(elsewhere.contains("slmswarm.io/hosts: evil.example.com"), "{elsewhere}");
        assert!(read("b", "https://api.example.com/v1").await.is_err(), "a Secret that says nothing goes nowhere");
        assert!(read("c", "https://api.example.com/v1").await.is_err_and(|why| why.contains("no Secret is named c")));
        std::fs::write(file.path(), "kind: Secret\nmetadata: s3cret\n").expect("a file");
        let wrong = read("a", "https://api.example.com/v1").await.expect_err("no Secret");
        assert!(!wrong.contains("s3cret"), "{wrong}");
        assert_eq!(format!("{:?}", Token("s3cret".to_owned())), "Token(…)");
    }
}

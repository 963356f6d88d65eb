//! Credentials for servers and registries.

use std::{collections::BTreeMap, fmt};

use base64::Engine as _;
use serde::Deserialize;

/// Credentials for a server.
#[derive(Clone)]
pub enum Credentials {
    /// A user name and a password, or a token in place of the password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A token, sent as `Authorization: Bearer`.
    Bearer(String),
    /// Credentials by host.
    Hosts(HostCredentials),
}

/// Credentials by host, as in a Secret of type `kubernetes.io/dockerconfigjson`.
#[derive(Clone)]
pub struct HostCredentials(BTreeMap<String, Secret>);

/// Credentials for one host.
#[derive(Clone, PartialEq)]
pub(crate) enum Secret {
    Basic {
        username: String,
        password: String,
    },
    Bearer(String),
    /// A refresh token, which a registry's token server exchanges.
    Identity(String),
}

/// Reason why a Docker configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Not JSON of the expected form.
    #[error("not a Docker configuration: {0}; expected {{\"auths\": {{\"HOST\": {{\"auth\": \"…\"}}}}}}")]
    Json(#[from] serde_json::Error),
    /// An entry cannot be read.
    #[error("auths.{host}: {message}")]
    Entry {
        /// Key of the entry.
        host: String,
        /// Description of the error.
        message: &'static str,
    },
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Credentials {
    /// Reads the `.dockerconfigjson` of a Secret, or the `config.json` of docker or podman.
    ///
    /// # Errors
    /// It is not of that form. The message names the entry, never its content.
    pub fn from_docker_config(json: &str) -> Result<Self, CredentialError> {
        let config: DockerConfig = serde_json::from_str(json)?;
        let mut hosts = BTreeMap::new();
        for (host, auth) in config.auths {
            let entry = |message| CredentialError::Entry { host: host.clone(), message };
            // An empty entry refers to a credential helper, which pods do not have.
            if let Some(secret) = auth.secret().map_err(entry)? {
                hosts.insert(normal(&host), secret);
            }
        }
        Ok(Self::Hosts(HostCredentials(hosts)))
    }

    /// Credentials for a repository or path on a host.
    pub(crate) fn of(&self, host: &str, path: &str) -> Option<Secret> {
        match self {
            Self::Basic { username, password } => {
                Some(Secret::Basic { username: username.clone(), password: password.clone() })
            }
            Self::Bearer(token) => Some(Secret::Bearer(token.clone())),
            Self::Hosts(HostCredentials(hosts)) => {
                let wanted = format!("{}/{}/", normal(host), path.trim_matches('/'));
                // The longest key wins: `HOST/TEAM` is more specific than `HOST`.
                let fits = hosts.iter().filter(|(key, _)| wanted.starts_with(&format!("{key}/")));
                fits.max_by_key(|(key, _)| key.len()).map(|(_, secret)| secret.clone())
            }
        }
    }
}

impl DockerAuth {
    fn secret(&self) -> Result<Option<Secret>, &'static str> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Secret::Bearer(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Secret::Identity(self.identitytoken.clone())));
        }
        if !self.username.is_empty() {
            return Ok(Some(Secret::Basic { username: self.username.clone(), password: self.password.clone() }));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(&self.auth).map_err(|_| "`auth` is not base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "`auth` is not text")?;
        let (username, password) = text.split_once(':').ok_or("`auth` is not base64 of USER:PASSWORD")?;
        Ok(Some(Secret::Basic { username: username.to_owned(), password: password.to_owned() }))
    }
}

/// A key normalised to `HOST[:PORT][/PATH]`. Docker Hub has several names.
fn normal(host: &str) -> String {
    let host = host.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (name, path) = host.split_at(host.find('/').unwrap_or(host.len()));
    match name {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => {
            format!("docker.io{}", path.trim_end_matches("/v1").trim_end_matches("/v2"))
        }
        _ => format!("{}{path}", name.to_ascii_lowercase()),
    }
}

/// Hides all secrets.
impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { .. } => out.write_str("Basic(…)"),
            Self::Bearer(_) => out.write_str("Bearer(…)"),
            Self::Hosts(hosts) => hosts.fmt(out),
        }
    }
}

impl fmt::Debug for HostCredentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(found: Option<Secret>) -> Option<String> {
        found.map(|secret| match secret {
            Secret::Basic { username, password } => format!("{username}:{password}"),
            Secret::Bearer(token) => format!("bearer {token}"),
            Secret::Identity(token) => format!("identity {token}"),
        })
    }

    #[test]
    fn docker_config_is_looked_up_by_host_and_path() {
        let config = r#"{"auths": {
            "localhost:5000": {"auth": "YWxpY2U6czpjcmV0"},
            "https://registry.example.com/v2-team": {"username": "bob", "password": "p"},
            "registry.example.com": {"registrytoken": "t"},
            "https://index.docker.io/v1/": {"identitytoken": "i"},
            "helper.example.com": {}
        }}"#;
        let credentials = Credentials::from_docker_config(config).unwrap();
        for (host, path, expected) in [
            ("localhost:5000", "a/b", Some("alice:s:cret")),
            ("localhost", "a/b", None),
            ("registry.example.com", "v2-team/model", Some("bob:p")),
            ("registry.example.com", "v2-teammates/model", Some("bearer t")),
            ("REGISTRY.example.com", "other", Some("bearer t")),
            ("docker.io", "library/x", Some("identity i")),
            ("helper.example.com", "x", None),
        ] {
            assert_eq!(user(credentials.of(host, path)).as_deref(), expected, "{host}/{path}");
        }
        let shown = format!("{credentials:?}");
        assert!(shown.contains("localhost:5000") && !shown.contains("cret"), "{shown}");
    }

    #[test]
    fn refusals_name_the_entry_and_not_its_content() {
        let error = Credentials::from_docker_config(r#"{"auths":{"h":{"auth":"c2VjcmV0"}}}"#).unwrap_err().to_string();
        assert_eq!(error, "auths.h: `auth` is not base64 of USER:PASSWORD");
        assert!(Credentials::from_docker_config("[]").unwrap_err().to_string().contains("\"auths\""));
    }
}

//! What stores are authenticated with: Secrets of a file, as manifests.
//!
//! Whoever may write a route names both a host and a Secret. A Secret says itself which hosts it may be sent to
//! ([`HOSTS`](slm_crds::hosts::HOSTS)), as for models outside.

use std::{fmt, path::PathBuf};

use k8s_openapi::api::core::v1::Secret;
use slm_crds::{hosts, secret_file};

/// Where Secrets are. Read whenever one is needed, so that a changed file needs no restart.
#[derive(Clone, Debug, Default)]
pub struct Secrets(pub Option<PathBuf>);

/// The entries of one Secret. Never shown.
#[derive(Clone, Default)]
pub(crate) struct Entries(Secret);

impl fmt::Debug for Entries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Entries(…)")
    }
}

impl Entries {
    /// The text of an entry.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        secret_file::entry(&self.0, key)
    }
}

impl Secrets {
    /// The entries of the Secret `name`, for the server at `url`.
    ///
    /// # Errors
    /// Names the Secret and what it lacks.
    pub(crate) async fn entries(&self, name: &str, url: &str) -> Result<Entries, String> {
        let Some(path) = &self.0 else {
            return Err(format!("Secret {name}: there are no Secrets here; name a file of them with --secrets"));
        };
        let (file, secret) = (path.clone(), name.to_owned());
        let found = tokio::task::spawn_blocking(move || secret_file::find(&file, &secret)).await;
        let secret = found.map_err(|error| error.to_string())??;
        let secret = secret.ok_or_else(|| format!("{}: no Secret is named {name}", path.display()))?;
        hosts::allowed_outside(secret_file::hosts(&secret), url, None)
            .map_err(|why| format!("Secret {name}: {why}"))?;
        Ok(Entries(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_goes_where_it_says() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = "kind: Secret\nmetadata: {name: a, annotations: {slmswarm.io/hosts: 'db:5432,http://near:1'}}\n\
                    stringData: {password: s3cret}\ndata: {username: cmVhZGVy}\n---\nmetadata: {name: b}\n";
        std::fs::write(file.path(), text).expect("a file");
        let secrets = Secrets(Some(file.path().to_owned()));
        let entries = secrets.entries("a", "postgres://u@db:5432/x").await.expect("entries");
        let entry = |key| entries.get(key);
        assert_eq!((entry("password").as_deref(), entry("username").as_deref()), (Some("s3cret"), Some("reader")));
        assert_eq!(format!("{entries:?}"), "Entries(…)");
        assert!(secrets.entries("a", "http://near:1").await.is_ok());
        for (name, url, why) in [
            ("a", "postgres://elsewhere/x", "may not be sent to `elsewhere`"),
            ("a", "http://db:5432", "which is not encrypted"),
            ("b", "postgres://db:5432/x", "slmswarm.io/hosts: db:5432"),
            ("c", "postgres://db:5432/x", "no Secret is named c"),
        ] {
            let refused = secrets.entries(name, url).await.expect_err(why);
            assert!(refused.contains(why) && !refused.contains("s3cret"), "{refused}");
        }
        std::fs::write(file.path(), "metadata: s3cret\n").expect("a file");
        let wrong = secrets.entries("a", "postgres://db:5432/x").await.expect_err("no Secret");
        assert!(!wrong.contains("s3cret"), "{wrong}");
        assert!(Secrets::default().entries("a", "x").await.is_err_and(|why| why.contains("--secrets")));
    }
}

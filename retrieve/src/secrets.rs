//! What stores are authenticated with: Secrets of a file, as manifests.
//!
//! Whoever may write a route names both a host and a Secret. A Secret says itself which hosts it may be sent to
//! ([`HOSTS`](slm_crds::hosts::HOSTS)), as for models outside.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use slm_crds::hosts;

/// Bytes of a file of Secrets.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where Secrets are. Read whenever one is needed, so that a changed file needs no restart.
#[derive(Clone, Debug, Default)]
pub struct Secrets(pub Option<PathBuf>);

/// The entries of one Secret. Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Entries(BTreeMap<String, String>);

impl fmt::Debug for Entries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Entries(…)")
    }
}

impl Entries {
    /// An entry without the line end of a file that was made by hand.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.trim_end_matches(['\r', '\n'])).filter(|value| !value.is_empty())
    }
}

#[derive(Deserialize)]
struct Secret {
    metadata: Metadata,
    #[serde(default, rename = "stringData")]
    string_data: BTreeMap<String, String>,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
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
        let secret = in_file(path, name).await?;
        let secret = secret.ok_or_else(|| format!("{}: no Secret is named {name}", path.display()))?;
        let listed = secret.metadata.annotations.get(hosts::HOSTS).map(String::as_str);
        hosts::allowed_outside(listed, url, None).map_err(|why| format!("Secret {name}: {why}"))?;
        let mut entries = secret.string_data;
        for (key, value) in secret.data {
            let decoded = STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = decoded.ok_or_else(|| format!("Secret {name}: data.{key} is no base64 of a text"))?;
            entries.entry(key).or_insert(decoded);
        }
        Ok(Entries(entries))
    }
}

async fn in_file(path: &Path, name: &str) -> Result<Option<Secret>, String> {
    let wrong = |what: &dyn fmt::Display| format!("{}: {what}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(|error| wrong(&error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(wrong(&format!("{size} bytes, but a file of Secrets has at most {FILE_BYTES_MAX}")));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(|error| wrong(&error))?;
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        // The parser's words may show what stands there: only the place is told.
        let place = |error: serde_yaml_ng::Error| {
            let line = error.location().map_or(0, |location| location.line());
            wrong(&format!("line {line}: not a Secret manifest: `metadata.name` with `stringData` or `data`"))
        };
        let document = serde_yaml_ng::Value::deserialize(document).map_err(place)?;
        if document.is_null() {
            continue;
        }
        let secret: Secret = serde_yaml_ng::from_value(document).map_err(place)?;
        if secret.metadata.name == name {
            return Ok(Some(secret));
        }
    }
    Ok(None)
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
        assert_eq!((entries.get("password"), entries.get("username")), (Some("s3cret"), Some("reader")));
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

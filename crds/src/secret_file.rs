//! A file of Secrets, as manifests: what a cluster's Secrets are on one machine.

use std::{fmt, fs, path::Path};

use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize as _;

/// Bytes of a file of Secrets.
const BYTES_MAX: u64 = 1 << 20;

/// The Secret `name` in the file at `path`, if it has one. Blocks. A file that is being written may not be there for a moment, or half.
///
/// # Errors
/// The file cannot be read, has something else than Secrets, or has two of this name. Never a word of what stands there.
pub fn find(path: &Path, name: &str) -> Result<Option<Secret>, String> {
    let wrong = |what: &dyn fmt::Display| format!("{}: {what}", path.display());
    let size = fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if size > BYTES_MAX {
        return Err(wrong(&format!("{size} bytes, but a file of Secrets has at most {BYTES_MAX}")));
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let mut found = None;
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
        if secret.metadata.name.as_deref() != Some(name) {
            continue;
        }
        if found.replace(secret).is_some() {
            return Err(wrong(&format!("two Secrets are named {name}; remove one")));
        }
    }
    Ok(found)
}

/// The text of an entry, without the line end of a file that was made by hand; `None` if it is missing, empty or no text.
#[must_use]
pub fn entry(secret: &Secret, key: &str) -> Option<String> {
    let plain = secret.string_data.as_ref().and_then(|data| data.get(key).cloned());
    let encoded = || String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    let text = plain.or_else(encoded)?;
    let text = text.trim_end_matches(['\r', '\n']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// The annotation of a Secret that says to which hosts it may be sent.
#[must_use]
pub fn hosts(secret: &Secret) -> Option<&str> {
    secret.metadata.annotations.as_ref()?.get(crate::hosts::HOSTS).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("a file");
        file
    }

    #[test]
    fn secrets_by_name() {
        let text = "kind: Secret\nmetadata: {name: a, annotations: {slmswarm.io/hosts: db}}\nstringData: {token: \"one\\n\"}\n\
                    ---\n---\nmetadata: {name: b}\ndata: {token: dHdv}\n";
        let file = file(text);
        let read = |name| find(file.path(), name).expect("a file of Secrets");
        let (a, b) = (read("a").expect("a"), read("b").expect("b"));
        assert_eq!((entry(&a, "token").as_deref(), hosts(&a)), (Some("one"), Some("db")));
        assert_eq!((entry(&b, "token").as_deref(), hosts(&b)), (Some("two"), None));
        assert!(entry(&a, "password").is_none() && read("c").is_none());
    }

    #[test]
    fn what_is_wrong_is_said_without_a_secret() {
        let twice = "metadata: {name: a}\n---\nmetadata: {name: a}\n";
        for (text, what) in [
            ("metadata: s3cret\n", "not a Secret manifest"),
            ("metadata: {name: a}\ndata: {token: 's3cret!'}\n", "not a Secret manifest"),
            ("a: [s3cret\n", "not a Secret manifest"),
            (twice, "two Secrets are named a"),
        ] {
            let error = find(file(text).path(), "a").expect_err(what);
            assert!(error.contains(what) && !error.contains("s3cret"), "{error}");
        }
        assert!(find(Path::new("/nowhere"), "a").is_err());
        let large = file(&"#".repeat(BYTES_MAX as usize + 1));
        assert!(find(large.path(), "a").is_err_and(|error| error.contains("has at most")));
    }
}

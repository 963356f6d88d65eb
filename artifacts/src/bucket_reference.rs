//! References to files in a bucket: `s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH`.

use std::fmt;

use crate::files::{has_star_in_folder, is_path};

/// Service that keeps a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Amazon S3, or a server that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage, whose buckets are containers.
    Azure,
}

/// Reference to a bucket, or to files of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BucketReference {
    pub(crate) service: Service,
    pub(crate) bucket: String,
    /// A folder, a file, or a file's name with `*`; empty: the whole bucket.
    pub(crate) path: String,
}

const FORM: &str = "write s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH";
/// Longest name of a bucket: Google's with dots.
const NAME_MAX: usize = 222;

impl BucketReference {
    /// Parses a whole URI.
    pub(crate) fn parse(uri: &str) -> Result<Self, String> {
        let (scheme, rest) = uri.split_once("://").ok_or(FORM)?;
        let service = match scheme.to_ascii_lowercase().as_str() {
            "s3" => Service::S3,
            "gs" => Service::Gcs,
            "az" => Service::Azure,
            _ => return Err(FORM.to_owned()),
        };
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let starts_well = bucket.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts_well || bucket.len() > NAME_MAX || !bucket.chars().all(letter) || bucket.contains("..") {
            return Err(format!("`{bucket}` is not the name of a bucket; {FORM}"));
        }
        if path.contains(['?', '#']) {
            return Err(format!("has a query or a fragment; {FORM}"));
        }
        let path = path.trim_end_matches('/');
        if !path.is_empty() && !is_path(path) {
            return Err(format!("`{path}` is not a path within a bucket; {FORM}"));
        }
        if has_star_in_folder(path) {
            return Err(format!("`{path}` has * in the name of a folder; only the last part of a path may have it"));
        }
        Ok(Self { service, bucket: bucket.to_owned(), path: path.to_owned() })
    }

    /// The folder that is to be listed to find what the path names.
    pub(crate) fn listed(&self) -> &str {
        match self.path.rsplit_once('/') {
            Some((folder, last)) if last.contains('*') => folder,
            None if self.path.contains('*') => "",
            _ => &self.path,
        }
    }
}

/// The URI.
impl fmt::Display for BucketReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.service {
            Service::S3 => "s3",
            Service::Gcs => "gs",
            Service::Azure => "az",
        };
        write!(out, "{scheme}://{}/{}", self.bucket, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for (uri, expected, listed) in [
            ("s3://models/smollm2/model.gguf", "s3://models/smollm2/model.gguf", "smollm2/model.gguf"),
            ("S3://models", "s3://models/", ""),
            ("gs://team-models/adapters/banking/", "gs://team-models/adapters/banking", "adapters/banking"),
            ("az://models/*.gguf", "az://models/*.gguf", ""),
            ("az://models/q4/*.gguf", "az://models/q4/*.gguf", "q4"),
        ] {
            let found = BucketReference::parse(uri).unwrap();
            assert_eq!((found.to_string().as_str(), found.listed()), (expected, listed), "{uri}");
        }
        for (uri, part) in [
            ("s3:models/x", "write s3://BUCKET/PATH"),
            ("s3:///x", "`` is not the name"),
            ("s3://../x", "is not the name"),
            ("s3://user@models/x", "is not the name"),
            ("s3://models/a/../b", "is not a path"),
            ("s3://models//a", "is not a path"),
            ("s3://models/a?versionId=1", "a query"),
            ("s3://models/*/a.gguf", "only the last part"),
        ] {
            let message = BucketReference::parse(uri).unwrap_err();
            assert!(message.contains(part), "{uri}: {message}");
        }
    }
}

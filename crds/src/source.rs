//! Source of an artifact.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::validation;

/// Source is the location of an artifact and, optionally, the digest it must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Uri of the artifact: `oci://REGISTRY/REPOSITORY:TAG` (or `@sha256:…`), `hf://ORG/REPO[@REVISION][/PATH]`, `s3://BUCKET/PATH`,
    /// `gs://BUCKET/PATH`, `az://CONTAINER/PATH`, `https://…`, `pvc://CLAIM/PATH` in a cluster;
    /// `file:///models/x.gguf`, or `file:models/x.gguf` relative to the manifest's folder, on one machine. Paths are taken
    /// as they are written, without percent decoding.
    #[schemars(length(min = 6, max = 4096), extend("x-kubernetes-validations" = validation::uri()))]
    pub uri: String,
    /// Digest that the artifact must have: `sha256:` and 64 hexadecimal digits. Of an OCI artifact it is the digest of the
    /// manifest, of a download that of the file, of several files of a Hub or a bucket that of their list, of local files the one that `slm convert --json` and `slm get` print. An
    /// artifact with another digest is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), extend("x-kubernetes-validations" = validation::digest()))]
    pub digest: Option<String>,
    /// SecretRef names a Secret with credentials for the registry or server: of type kubernetes.io/dockerconfigjson, or with `token`, or with
    /// `username` and `password`. For an adapter, a Secret with a token or a password needs the annotation `slmswarm.io/hosts`, which names the
    /// hosts that its credentials may be sent to: HOST or HOST:PORT, separated by commas; for buckets, their names. Those of `s3:` are `username`, the
    /// access key's id, and `password`, the secret access key; of `gs:` `token`, the JSON key of a service account; of `az:` `username`, the storage
    /// account, and `password`, its access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// SecretRef refers to a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl Source {
    /// The path that a `file:` URI names; `folder` is the manifest's own folder.
    ///
    /// `None` for any other scheme, which the manifest check refuses.
    #[must_use]
    pub fn path(&self, folder: &Path) -> Option<PathBuf> {
        let rest = self.uri.strip_prefix("file:")?;
        match rest.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => Some(PathBuf::from(absolute)),
            Some(_) => None,
            None => Some(folder.join(rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let cases = [
            ("file:///models/x.gguf", Some("/models/x.gguf")),
            ("file:models/x.gguf", Some("/etc/swarm/models/x.gguf")),
            ("file:../x.gguf", Some("/etc/swarm/../x.gguf")),
            ("file://host/x.gguf", None),
            ("hf://org/repo", None),
        ];
        for (uri, path) in cases {
            let source = Source { uri: uri.to_owned(), digest: None, secret_ref: None };
            assert_eq!(source.path(Path::new("/etc/swarm")), path.map(PathBuf::from), "{uri}");
        }
    }
}

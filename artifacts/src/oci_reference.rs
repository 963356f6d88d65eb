//! OCI references: `oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`.

use std::fmt;

use oci_spec::distribution::Reference;

use crate::digest::parse_digest;

/// Reference to an artifact in a registry.
#[derive(Clone, Debug)]
pub(crate) struct OciReference {
    reference: Reference,
    /// 64 hexadecimal digits.
    pub(crate) digest: Option<String>,
}

const FORM: &str = "write oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST], all but the tag in lower case";

impl OciReference {
    /// Parses the part after `oci:`.
    pub(crate) fn parse(rest: &str) -> Result<Self, String> {
        let text = rest.strip_prefix("//").ok_or(FORM)?;
        let host = text.split_once('/').map_or("", |(host, _)| host);
        // The library would take the first component for a folder on Docker Hub.
        if !(host.contains(['.', ':']) || host == "localhost") {
            return Err(format!("names no registry; {FORM}"));
        }
        let reference: Reference = text.parse().map_err(|error| format!("{error}; {FORM}"))?;
        let digest = reference.digest().map(|digest| parse_digest("", digest)).transpose();
        let digest = digest.map_err(|_| format!("the digest is not sha256: and 64 lower-case digits; {FORM}"))?;
        Ok(Self { reference, digest })
    }

    /// `HOST[:PORT]` as written.
    pub(crate) fn host(&self) -> &str {
        self.reference.registry()
    }

    /// `HOST[:PORT]` of its API.
    pub(crate) fn api_host(&self) -> &str {
        self.reference.resolve_registry()
    }

    pub(crate) fn repository(&self) -> &str {
        self.reference.repository()
    }

    /// `latest` if neither a tag nor a digest is given.
    pub(crate) fn tag(&self) -> &str {
        self.reference.tag().unwrap_or("latest")
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reference.whole())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let hex = "0123456789abcdef".repeat(4);
        for (text, expected) in [
            ("//localhost:5000/a/b:v1".to_owned(), "localhost:5000 a/b v1 -".to_owned()),
            ("//ghcr.io/a/b".to_owned(), "ghcr.io a/b latest -".to_owned()),
            (format!("//ghcr.io/a/b@sha256:{hex}"), format!("ghcr.io a/b latest {hex}")),
            (format!("//ghcr.io/a/b:v1@sha256:{hex}"), format!("ghcr.io a/b v1 {hex}")),
            ("//docker.io/ai/smollm2".to_owned(), "index.docker.io ai/smollm2 latest -".to_owned()),
        ] {
            let found = OciReference::parse(&text).unwrap();
            let digest = found.digest.as_deref().unwrap_or("-");
            assert_eq!(format!("{} {} {} {digest}", found.api_host(), found.repository(), found.tag()), expected);
        }
        for (text, part) in [
            ("localhost/a", "write oci://HOST"),
            ("//a/b:v1", "names no registry"),
            ("//ghcr.io", "names no registry"),
            ("//ghcr.io/", "invalid reference format"),
            ("//ghcr.io/A", "lower case"),
            ("//ghcr.io/a:", "invalid reference format"),
            ("//ghcr.io/a@sha256:00", "invalid reference format"),
            ("//ghcr.io/a/../b", "invalid reference format"),
        ] {
            let message = OciReference::parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        let upper = format!("//ghcr.io/a@sha256:{}", hex.to_uppercase());
        assert!(OciReference::parse(&upper).unwrap_err().contains("lower-case"));
    }
}

//! Sources: parsing and displaying URIs.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::{
    Credentials, FetchError, bucket_reference::BucketReference, hub_reference::HubReference,
    oci_reference::OciReference,
};

/// Source of an artifact.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `file:PATH`, `pvc://CLAIM/PATH`, `https://…`, `oci://HOST/REPOSITORY[:TAG][@DIGEST]`,
    /// `hf://ORG/REPO[@REVISION][/PATH]`, or `s3://BUCKET/PATH`, `gs://BUCKET/PATH` or `az://CONTAINER/PATH`.
    pub uri: String,
    /// Expected digest, `sha256:` and 64 hexadecimal digits: of the file or archive for `https:`, of the manifest for
    /// `oci:`, of the file or of the list of files for `hf:` and buckets. Ignored for `file:` and `pvc:`, which are used in place: there the caller compares it.
    pub digest: Option<String>,
    /// Credentials for the server. Never sent to another host, nor without TLS unless the host is allowed without.
    pub credentials: Option<Credentials>,
}

impl Source {
    /// A source without a digest or credentials.
    #[must_use]
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), ..Self::default() }
    }

    /// The URI without user, password, query and fragment.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.uri)
    }
}

/// A parsed URI.
#[derive(Debug)]
pub(crate) enum Location {
    /// A local file or folder.
    File(PathBuf),
    /// A path on a mounted PersistentVolumeClaim.
    Claim {
        /// Name of the PersistentVolumeClaim.
        claim: String,
        /// Relative path on it.
        path: PathBuf,
    },
    /// A file or archive on a web server.
    Web(Box<Url>),
    /// An artifact in a registry.
    Oci(OciReference),
    /// Files in a repository of a Hub.
    Hub(HubReference),
    /// Files in a bucket.
    Bucket(BucketReference),
}

const SUPPORTED: &str = "file:PATH, pvc://CLAIM/PATH, https://HOST/FILE, oci://HOST/REPOSITORY:TAG, hf://ORG/REPO, s3://BUCKET/PATH, \
                         gs://BUCKET/PATH or az://CONTAINER/PATH";

impl Location {
    /// # Errors
    /// [`FetchError::BadReference`] names the invalid part.
    pub(crate) fn parse(uri: &str) -> Result<Self, FetchError> {
        let bad = |message: String| FetchError::bad(&shown(uri), message);
        let Some((scheme, rest)) = uri.split_once(':') else {
            return Err(bad(format!("has no scheme; write {SUPPORTED}")));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => file(rest).map(Self::File).map_err(bad),
            "pvc" => claim(rest).map_err(bad),
            "http" | "https" => web(uri).map(Self::Web).map_err(bad),
            "oci" => OciReference::parse(rest).map(Self::Oci).map_err(bad),
            "hf" => HubReference::parse(rest).map(Self::Hub).map_err(bad),
            "s3" | "gs" | "az" => BucketReference::parse(uri).map(Self::Bucket).map_err(bad),
            other => Err(bad(format!("scheme `{other}` is not supported; write {SUPPORTED}"))),
        }
    }
}

fn file(rest: &str) -> Result<PathBuf, String> {
    let path = match rest.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return Err("an absolute path has three slashes, as in file:///models/x.gguf".to_owned()),
        None => rest,
    };
    if path.is_empty() { Err("names no file".to_owned()) } else { Ok(PathBuf::from(path)) }
}

fn claim(rest: &str) -> Result<Location, String> {
    let rest = rest.strip_prefix("//").ok_or("write pvc://CLAIM/PATH")?;
    let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
    // Only names that Kubernetes allows, so that a claim cannot be more than one folder's name.
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let named = claim.len() <= 253
        && claim.starts_with(letter)
        && claim.ends_with(letter)
        && claim.chars().all(|c| letter(c) || c == '-' || c == '.');
    if !named {
        return Err(format!("`{claim}` is not the name of a PersistentVolumeClaim; write pvc://CLAIM/PATH"));
    }
    let mut relative = PathBuf::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err("`..` is not allowed in the path of a claim".to_owned());
        }
        relative.push(part);
    }
    Ok(Location::Claim { claim: claim.to_owned(), path: relative })
}

fn web(uri: &str) -> Result<Box<Url>, String> {
    let mut url = Url::parse(uri).map_err(|error| format!("is not a URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong in a URI; give them beside it".to_owned());
    }
    if file_name(&url).is_none() {
        return Err("names no file; the last part of the path must be its name".to_owned());
    }
    url.set_fragment(None);
    Ok(Box::new(url))
}

/// File name at the end of a URL, if it is a valid one.
pub(crate) fn file_name(url: &Url) -> Option<String> {
    let last = url.path_segments()?.next_back()?;
    let name = percent_decode_str(last).decode_utf8().ok()?.into_owned();
    let fits = !name.is_empty() && name.len() <= 255 && name != "." && name != "..";
    (fits && !name.contains(['/', '\\', '\0'])).then_some(name)
}

/// A URI without secrets. Works for invalid URIs too, for the message that rejects them.
pub(crate) fn shown(uri: &str) -> String {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    let uri = &uri[..end];
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    // An `@` also precedes the digest of an OCI reference; credentials come before the first slash.
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(uri: &str) -> String {
        match Location::parse(uri) {
            Ok(Location::File(path)) => format!("file {}", path.display()),
            Ok(Location::Claim { claim, path }) => format!("claim {claim} {}", path.display()),
            Ok(Location::Web(url)) => format!("web {url} {}", file_name(&url).unwrap()),
            Ok(Location::Oci(reference)) => format!("oci {reference}"),
            Ok(Location::Hub(reference)) => format!("hub {reference}"),
            Ok(Location::Bucket(reference)) => format!("bucket {reference}"),
            Err(error) => format!("{}: {error}", error.reason()),
        }
    }

    #[test]
    fn uris() {
        for (uri, expected) in [
            ("file:models/x.gguf", "file models/x.gguf"),
            ("file:///models/x.gguf", "file /models/x.gguf"),
            ("FILE:/models/x.gguf", "file /models/x.gguf"),
            ("pvc://models/llama/x.gguf", "claim models llama/x.gguf"),
            ("pvc://models", "claim models "),
            ("pvc://models//a/./b/", "claim models a/b"),
            ("https://example.com/a/b%20c.gguf?token=x#y", "web https://example.com/a/b%20c.gguf?token=x b c.gguf"),
            ("http://localhost:8080/x.tar.gz", "web http://localhost:8080/x.tar.gz x.tar.gz"),
            ("oci://localhost:5000/team/model:v1", "oci localhost:5000/team/model:v1"),
            ("hf://org/repo@v1/a.gguf", "hub org/repo@v1/a.gguf"),
        ] {
            assert_eq!(parsed(uri), expected, "{uri}");
        }
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (uri, part) in [
            ("models/x.gguf", "has no scheme"),
            ("hf://org", "write hf://ORG/REPO"),
            ("ftp://host/x", "scheme `ftp` is not supported; write file:PATH, pvc://CLAIM/PATH, https://"),
            ("file:", "names no file"),
            ("file://models/x", "three slashes"),
            ("pvc:models/x", "write pvc://CLAIM/PATH"),
            ("pvc:///x", "`` is not the name"),
            ("pvc://../x", "`..` is not the name"),
            ("pvc://Models/x", "`Models` is not the name"),
            ("pvc://models/a/../../b", "`..` is not allowed"),
            ("https://user:secret@example.com/x", "credentials do not belong"),
            ("https://example.com/", "names no file"),
            ("https://example.com/a/..%2fb", "names no file"),
            ("https://", "is not a URL"),
        ] {
            let shown = parsed(uri);
            assert!(shown.starts_with("BadReference: ") && shown.contains(part), "{uri}: {shown}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("https://u:p@example.com/x.gguf?sig=abc#f"), "https://example.com/x.gguf");
        assert_eq!(shown("oci://host/repo@sha256:00"), "oci://host/repo@sha256:00");
        assert_eq!(shown("nonsense"), "nonsense");
    }
}

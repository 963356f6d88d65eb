//! Properties of a source URI that are known without fetching it.

/// Claim name of a `pvc://CLAIM/PATH` URI.
#[must_use]
pub(crate) fn claim_of(uri: &str) -> Option<&str> {
    uri.strip_prefix("pvc://")?.split('/').next().filter(|claim| !claim.is_empty())
}

/// Reason why pods cannot reach a source.
#[must_use]
pub(crate) fn unreachable(uri: &str) -> Option<String> {
    uri.starts_with("file:").then(|| {
        format!(
            "{uri} is a path on one machine, which pods do not have; use oci://, hf://, s3://, gs://, az://, https:// or pvc://CLAIM/PATH"
        )
    })
}

/// The URL whose host a source's credentials are sent to: that of the Hub for `hf:`, the source's own otherwise.
#[must_use]
pub(crate) fn server<'a>(uri: &'a str, hub_endpoint: &'a str) -> &'a str {
    if uri.starts_with("hf:") { hub_endpoint } else { uri }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        assert_eq!(claim_of("pvc://models/smol/a.gguf"), Some("models"));
        assert_eq!(claim_of("oci://models/smol"), None);
        assert_eq!(server("hf://org/repo", "https://hub"), "https://hub");
        assert_eq!(server("oci://r/a", "https://hub"), "oci://r/a");
        assert!(unreachable("file:models/a.gguf").is_some() && unreachable("pvc://a/b").is_none());
    }
}

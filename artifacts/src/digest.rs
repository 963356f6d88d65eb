//! Digests as they are written.

use crate::FetchError;

/// The 64 digits of `sha256:HEX`.
pub(crate) fn parse_digest(uri: &str, digest: &str) -> Result<String, FetchError> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(hex.to_owned());
    }
    let message = format!("digest `{digest}` is not sha256: followed by 64 lower-case hexadecimal digits");
    Err(FetchError::bad(uri, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let digest = "0123456789abcdef".repeat(4);
        assert_eq!(parse_digest("u", &format!("sha256:{digest}")).unwrap(), digest);
        for wrong in [digest.as_str(), "sha256:00", "sha512:00", &format!("sha256:{}", digest.to_uppercase())] {
            let error = parse_digest("u", wrong).unwrap_err();
            assert!(error.reason() == "BadReference" && error.to_string().contains(wrong), "{error}");
        }
    }
}

//! Authorization header of a request.

use reqwest::header::HeaderValue;

use crate::{FetchError, credentials::Secret};

/// The header's value, marked as sensitive.
pub(crate) fn authorization(uri: &str, secret: &Secret) -> Result<HeaderValue, FetchError> {
    use base64::Engine as _;
    let text = match secret {
        Secret::Basic { username, password } => {
            let pair = format!("{username}:{password}");
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Secret::Bearer(token) | Secret::Identity(token) => format!("Bearer {}", token.trim()),
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| FetchError::bad(uri, "the token contains invalid characters, such as a line break"))?;
    value.set_sensitive(true);
    Ok(value)
}

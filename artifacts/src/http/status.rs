//! Classification of HTTP answers that are not a success.

use std::time::{Duration, SystemTime};

use reqwest::{Response, StatusCode, header::RETRY_AFTER};

use super::{
    client::{RedirectError, chain},
    retry::Fault,
};
use crate::FetchError;

/// The fault of an answer that is not a success. `what` names the requested item, as `file x.gguf`.
pub(crate) fn fault(uri: &str, what: &str, response: &Response) -> Fault {
    let status = response.status();
    let (uri, message) = (uri.to_owned(), format!("{what}: the server answers {status}"));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            FetchError::Unauthorized { uri, message }.into()
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => FetchError::NotFound { uri, message }.into(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Fault::Passing { error: FetchError::Unreachable { uri, message }, after: retry_after(response) }
        }
        status if status.is_server_error() => {
            Fault::Passing { error: FetchError::Unreachable { uri, message }, after: retry_after(response) }
        }
        _ => FetchError::Refused { uri, message }.into(),
    }
}

/// The fault of a request without an answer.
pub(crate) fn no_answer(uri: &str, error: &reqwest::Error) -> Fault {
    let message = chain(error);
    let uri = uri.to_owned();
    match std::error::Error::source(error).and_then(|source| source.downcast_ref()) {
        Some(RedirectError::Plain(_)) => return FetchError::Insecure { uri, message }.into(),
        Some(RedirectError::TooMany) => return FetchError::Refused { uri, message }.into(),
        None => {}
    }
    if error.is_builder() {
        return FetchError::BadReference { uri, message }.into();
    }
    Fault::passing(FetchError::Unreachable { uri, message })
}

/// The fault of an answer that took too long.
pub(crate) fn late(uri: &str, limit: Duration) -> Fault {
    let message = format!("no answer within {limit:?}");
    Fault::passing(FetchError::Unreachable { uri: uri.to_owned(), message })
}

/// The fault of an answer below the minimum rate.
pub(crate) fn slow(uri: &str, rate_min: u64) -> Fault {
    let message = format!("the server sends less than {rate_min} bytes a second");
    Fault::passing(FetchError::Unreachable { uri: uri.to_owned(), message })
}

fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    parse_retry_after(value, SystemTime::now())
}

/// A number of seconds, or a date.
fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let date = httpdate::fmt_http_date(now + Duration::from_secs(7));
        assert_eq!(parse_retry_after("3", now), Some(Duration::from_secs(3)));
        assert_eq!(parse_retry_after(&date, now), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Sun, 09 Sep 2001 01:46:39 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon", now), None);
    }
}

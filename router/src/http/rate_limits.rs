//! Headers that say what is left of the limits of a token, as OpenAI names and writes them.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::quota::{Remaining, Standing};

/// Limit, what is left of it, and the time until all of it is there again: of requests, then of tokens.
pub(super) const NAMES: [HeaderName; 6] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Adds those of the limits that there are.
pub(super) fn tell(standing: Standing, headers: &mut HeaderMap) {
    let limits = [standing.requests, standing.tokens];
    for (names, limit) in NAMES.chunks_exact(3).zip(limits) {
        let Some(Remaining { limit, left, reset }) = limit else { continue };
        let values =
            [Ok(HeaderValue::from(limit)), Ok(HeaderValue::from(left)), HeaderValue::from_str(&written(reset))];
        for (name, value) in names.iter().zip(values) {
            if let Ok(value) = value {
                headers.insert(name, value);
            }
        }
    }
}

/// A time as OpenAI writes it: `20ms`, `1s`, `6m0s`.
fn written(time: Duration) -> String {
    let milliseconds = time.as_millis();
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let seconds = time.as_secs_f64().ceil() as u64;
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let cases = [(0, "0ms"), (20, "20ms"), (1000, "1s"), (1001, "2s"), (59_500, "1m0s"), (360_000, "6m0s")];
        for (milliseconds, expected) in cases {
            assert_eq!(written(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn only_limits_that_there_are() {
        let mut headers = HeaderMap::new();
        tell(Standing::default(), &mut headers);
        assert!(headers.is_empty());
        let tokens = Some(Remaining { limit: 100, left: 7, reset: Duration::from_secs(56) });
        tell(Standing { requests: None, tokens }, &mut headers);
        let all: Vec<(&str, &str)> =
            headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
        assert_eq!(all.len(), 3);
        assert!(
            all.contains(&("x-ratelimit-remaining-tokens", "7")) && all.contains(&("x-ratelimit-reset-tokens", "56s"))
        );
    }
}

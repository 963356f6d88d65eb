//! Pauses between attempts.

use std::time::{Duration, Instant};

/// The pause after an attempt that `failed` others went before: doubles from a quarter of a second to `most`.
#[must_use]
pub fn backoff(failed: u32, most: Duration) -> Duration {
    const FIRST: Duration = Duration::from_millis(250);
    FIRST.saturating_mul(1 << failed.min(10)).min(most)
}

/// Waits until `instant`, or for ever when there is none.
pub async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_limit() {
        let most = Duration::from_secs(60);
        assert_eq!([0, 2, 40].map(|failed| backoff(failed, most).as_millis()), [250, 1000, 60_000]);
    }
}

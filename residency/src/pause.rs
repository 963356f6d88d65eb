//! Pauses between attempts.

use std::time::{Duration, Instant};

/// The pause after the first attempt that failed.
pub const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The pause after an attempt that `failed` others went before: doubles from a quarter of a second to `most`, with jitter.
#[must_use]
pub fn backoff(failed: u32, most: Duration) -> Duration {
    slm_backoff::pause(failed, FIRST_PAUSE, most)
}

/// Waits until `instant`, or for ever when there is none.
pub async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

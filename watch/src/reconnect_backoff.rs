//! Backoff between attempts to reach an unreachable API server.

use std::time::Duration;

use kube::runtime::utils;
use slm_backoff::Backoff;

const FIRST: Duration = Duration::from_millis(100);
/// kube's default grows to half a minute, during which changes would go unnoticed after the API server is back.
const MOST: Duration = Duration::from_secs(2);

/// Doubles from a tenth of a second to two seconds, without an end.
#[derive(Debug)]
pub struct ReconnectBackoff(Backoff);

impl Default for ReconnectBackoff {
    fn default() -> Self {
        Self(Backoff::new(FIRST, MOST))
    }
}

impl Iterator for ReconnectBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.pause())
    }
}

impl utils::Backoff for ReconnectBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }
}

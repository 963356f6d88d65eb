//! Between two attempts to reach an API server that is away.

use std::time::Duration;

use kube::runtime::utils;
use slm_backoff::Backoff;

const FIRST: Duration = Duration::from_millis(100);
/// kube's own default goes up to half a minute, for which nobody would hear of changes after the API server is back.
const MOST: Duration = Duration::from_secs(2);

/// Doubles from a tenth of a second to two seconds, and never ends.
#[derive(Debug)]
pub struct Patience(Backoff);

impl Default for Patience {
    fn default() -> Self {
        Self(Backoff::new(FIRST, MOST))
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.pause())
    }
}

impl utils::Backoff for Patience {
    fn reset(&mut self) {
        self.0.reset();
    }
}

//! Between two attempts to reach an API server that is away.

use std::time::Duration;

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(100);
/// kube's own default goes up to half a minute, for which nobody would hear of changes after the API server is back.
const MOST: Duration = Duration::from_secs(2);

/// Doubles from a tenth of a second to two seconds, and never ends.
#[derive(Clone, Copy, Debug)]
pub struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.0;
        self.0 = (now * 2).min(MOST);
        Some(now)
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_begins_again() {
        let mut patience = Patience::default();
        let millis: Vec<_> = patience.by_ref().take(7).map(|wait| wait.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 2000, 2000]);
        patience.reset();
        assert_eq!(patience.next(), Some(FIRST));
    }
}

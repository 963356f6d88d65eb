//! Pauses between attempts: exponential backoff, bounded, with jitter. The one place where all crates have it from.
//!
//! Each pause is drawn between half of the exponential one and all of it: processes that failed together do not come
//! back together, and no pause is longer than the bound. When to give up is not decided here.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// Doublings after which any bound of ours is reached.
const DOUBLINGS_MAX: u32 = 31;

/// Pauses of attempts in a row. Never ends.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// Pauses that double from `first` to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, pauses: pauses(first, most) }
    }

    /// The next one is the first again: an attempt went well.
    pub fn reset(&mut self) {
        self.pauses = pauses(self.first, self.most);
    }

    /// The pause after another attempt that failed.
    pub fn pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.most)
    }
}

/// The pause after an attempt that `failed` others went before.
#[must_use]
pub fn pause(failed: u32, first: Duration, most: Duration) -> Duration {
    let skipped = usize::try_from(failed.min(DOUBLINGS_MAX)).unwrap_or(0);
    pauses(first, most).nth(skipped).unwrap_or(most)
}

fn pauses(first: Duration, most: Duration) -> ExponentialBackoff {
    // Jitter adds up to as much again: so half of each is given.
    let builder = ExponentialBuilder::new().with_min_delay(first / 2).with_max_delay(most / 2);
    builder.without_max_times().with_jitter().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(2);

    /// Bounds of the pause after `failed` failures.
    fn bounds(failed: u32) -> std::ops::RangeInclusive<Duration> {
        let all = FIRST.saturating_mul(1 << failed.min(20)).min(MOST);
        all / 2..=all
    }

    #[test]
    fn pauses_double_to_their_bound_and_begin_again() {
        let mut backoff = Backoff::new(FIRST, MOST);
        for failed in 0..40 {
            let next = backoff.pause();
            assert!(bounds(failed).contains(&next), "{failed}: {next:?}");
            let alone = pause(failed, FIRST, MOST);
            assert!(bounds(failed).contains(&alone), "{failed}: {alone:?}");
        }
        backoff.reset();
        assert!(bounds(0).contains(&backoff.pause()));
        assert!(bounds(40).contains(&pause(u32::MAX, FIRST, MOST)));
    }

    #[test]
    fn two_who_failed_together_do_not_come_back_together() {
        let drawn = || (0..8).map(|failed| pause(failed, FIRST, MOST)).collect::<Vec<_>>();
        assert_ne!(drawn(), drawn());
    }
}

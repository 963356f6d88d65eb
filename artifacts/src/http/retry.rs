//! Retries with exponential backoff.

use std::time::Duration;

use crate::FetchError;

/// Bounds of retries and their backoff.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Consecutive attempts without progress before giving up. At least 1.
    pub attempts: u32,
    /// First pause. Each further pause is twice as long, with jitter, so that many pods do not retry at once.
    pub pause_first: Duration,
    /// Longest pause. If a server asks for a longer one, the fetch fails.
    pub pause_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, pause_first: Duration::from_millis(500), pause_max: Duration::from_secs(30) }
    }
}

/// Bytes of an attempt that always count as progress.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Bound on attempts with less progress that still count.
const SMALL_MAX: u32 = 20;

/// Failure of an attempt.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Permanent.
    Final(FetchError),
    /// The partial download was useless. Retry at once without it.
    Anew,
    /// Transient; `after` is the pause that the server asked for.
    Passing { error: FetchError, after: Option<Duration> },
}

impl From<FetchError> for Fault {
    fn from(error: FetchError) -> Self {
        Self::Final(error)
    }
}

impl Fault {
    pub(crate) fn passing(error: FetchError) -> Self {
        Self::Passing { error, after: None }
    }
}

/// Retry state of one operation.
#[derive(Debug)]
pub(crate) struct Retries {
    policy: RetryPolicy,
    failed: u32,
    /// Attempts with little progress.
    small: u32,
}

impl Retries {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failed: 0, small: 0 }
    }

    /// The last attempt brought `bytes`, so the next failure counts as the first. Small amounts count only a bounded
    /// number of times, or a source that sends a byte an attempt would be retried for ever.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        if bytes < PROGRESS_BYTES {
            self.small += 1;
        }
        if self.small <= SMALL_MAX {
            self.failed = 0;
        }
    }

    /// Waits for the next attempt.
    ///
    /// # Errors
    /// The attempt's own error if there is no next attempt.
    pub(crate) async fn pause(&mut self, fault: Fault) -> Result<(), FetchError> {
        let (error, after) = match fault {
            Fault::Final(error) => return Err(error),
            Fault::Anew => return Ok(()),
            Fault::Passing { error, after } => (error, after),
        };
        self.failed += 1;
        let Some(pause) = self.policy.pause(self.failed, after) else { return Err(error) };
        tracing::debug!(%error, attempt = self.failed, pause_ms = pause.as_millis(), "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

impl RetryPolicy {
    /// The same with fewer attempts, for a fetch that has a cached version: two rule out a hiccup.
    pub(crate) fn hurried(self) -> Self {
        Self { attempts: self.attempts.min(2), ..self }
    }

    /// The pause after `failed` failures, `None` to give up.
    fn pause(&self, failed: u32, asked: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        match asked {
            Some(asked) => (asked <= self.pause_max).then_some(asked),
            None => Some(slm_backoff::pause(failed.saturating_sub(1), self.pause_first, self.pause_max)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_that_bring_next_to_nothing_come_to_an_end() {
        let fault = || Fault::passing(FetchError::Unreachable { uri: "u".to_owned(), message: "slow".to_owned() });
        let attempts = async |bytes: u64| {
            let mut retries = Retries::new(RetryPolicy::default());
            for attempt in 1..1000 {
                retries.progressed(bytes);
                if retries.pause(fault()).await.is_err() {
                    return Some(attempt);
                }
            }
            None
        };
        assert_eq!(attempts(1).await, Some(SMALL_MAX + RetryPolicy::default().attempts - 1));
        assert_eq!(attempts(PROGRESS_BYTES).await, None, "a large file over a bad link");
    }

    #[test]
    fn pauses_double_to_a_bound_and_end() {
        let policy =
            RetryPolicy { attempts: 5, pause_first: Duration::from_secs(1), pause_max: Duration::from_secs(5) };
        for (failed, longest) in (1..).zip([1, 2, 4, 5].map(Duration::from_secs)) {
            let pause = policy.pause(failed, None).expect("another attempt");
            assert!(pause >= longest / 2 && pause <= longest, "{failed}: {pause:?}");
        }
        assert_eq!(policy.pause(5, None), None);
        assert_eq!(policy.pause(1, Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(policy.pause(1, Some(Duration::from_secs(6))), None);
        let endless = RetryPolicy { attempts: u32::MAX, ..policy };
        assert!(endless.pause(1000, None).is_some_and(|pause| pause <= policy.pause_max));
    }
}

//! A refused load: its reason, and the time of its retry.

use std::time::{Duration, Instant};

use slm_proto::trailers;
use tonic::{Code, Status};

use crate::{pause::backoff, version::Version};

/// Longest pause between attempts at a load that may succeed by itself.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Pause after a refusal that only other files mend: they may be mended in place.
const CHANGED_PAUSE: Duration = Duration::from_secs(120);
/// Longest time that a new worker stays unready for an adapter whose loads may succeed by themselves.
const TRANSIENT_WAIT_MAX: Duration = Duration::from_secs(1);

/// A version that a worker could not load.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The version that was refused.
    pub version: Version,
    /// Reason in one word, as in a condition.
    pub reason: String,
    /// The worker's message.
    pub message: String,
    /// The change after which the same load may succeed.
    pub retry_when: RetryWhen,
    /// Number of attempts.
    pub attempts: u32,
    /// Time of the first attempt.
    pub since: Instant,
    /// True when the readiness of a worker no longer waits for it.
    pub lasting: bool,
    /// Time of the next attempt.
    pub again: Instant,
}

/// The change after which a refused load may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryWhen {
    /// An adapter slot is free: another adapter has left the worker.
    SlotFree,
    /// Some time has passed.
    Later,
    /// The files or the manifest have changed.
    Changed,
}

impl Refused {
    /// True when the adapter can be loaded only after something else changes: its files, its manifest, or the adapters that
    /// hold the slots.
    #[must_use]
    pub fn needs_change(&self) -> bool {
        self.lasting && self.retry_when != RetryWhen::Later
    }

    /// The refusal of `version` by a worker's `status`. `asked` is the time of this request, `before` the refusal of the
    /// same version before it.
    #[must_use]
    pub fn new(version: Version, status: &Status, before: Option<&Self>, asked: Instant, now: Instant) -> Self {
        let attempts = before.map_or(0, |before| before.attempts);
        let since = before.map_or(asked, |before| before.since);
        let retry_when = retry_when(status);
        let passes = retry_when != RetryWhen::Changed;
        let word = status.metadata().get(trailers::REASON).and_then(|word| word.to_str().ok());
        Self {
            version,
            reason: word.unwrap_or("LoadFailed").to_owned(),
            message: status.message().to_owned(),
            retry_when,
            attempts: attempts.saturating_add(1),
            since,
            lasting: !passes || now.saturating_duration_since(since) >= TRANSIENT_WAIT_MAX,
            again: now + if passes { backoff(attempts, PAUSE_MAX) } else { CHANGED_PAUSE },
        }
    }
}

fn retry_when(status: &Status) -> RetryWhen {
    match status.code() {
        Code::ResourceExhausted => RetryWhen::SlotFree,
        Code::Unavailable | Code::Aborted | Code::Cancelled | Code::DeadlineExceeded => RetryWhen::Later,
        _ => RetryWhen::Changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_soon_and_waited_for_a_while() {
        let start = Instant::now();
        let mut now = start;
        let version = Version { source: "file:a".to_owned(), digest: None, scale: 1.0, pinned: false };
        let full = Status::resource_exhausted("all slots are taken");
        let mut refused = Refused::new(version.clone(), &full, None, start, start);
        for attempt in 0..12 {
            let (pause, waited) = (refused.again - now, now - start);
            let longest = Duration::from_millis(250 << attempt).min(PAUSE_MAX);
            assert!(pause >= longest / 2 && pause <= longest, "attempt {attempt}: {pause:?}");
            assert_eq!(refused.lasting, waited >= TRANSIENT_WAIT_MAX, "attempt {attempt}, after {waited:?}");
            assert_eq!(refused.needs_change(), refused.lasting, "it needs a slot");
            now = refused.again;
            refused = Refused::new(version.clone(), &full, Some(&refused), now, now);
        }
        assert!(refused.lasting);
        let away = Status::unavailable("no answer");
        assert!(!Refused::new(version.clone(), &away, Some(&refused), now, now).needs_change());
        let broken = Refused::new(version, &Status::invalid_argument("no tensors"), None, start, start);
        assert_eq!((broken.lasting, broken.again - start, broken.reason.as_str()), (true, CHANGED_PAUSE, "LoadFailed"));
    }
}

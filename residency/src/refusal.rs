//! What a refused load means, and when it is tried again.

use std::time::{Duration, Instant};

use slm_proto::trailers;
use tonic::{Code, Status};

use crate::{pause::backoff, version::Version};

/// Most time between two attempts at a load that may go well by itself.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After a refusal that only other files mend: they may be mended in place.
const MENDED: Duration = Duration::from_secs(120);
/// A worker waits no longer than this for an adapter whose loads may go well by themselves; it serves without.
const PATIENCE: Duration = Duration::from_secs(1);

/// A version that a worker could not load.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Which.
    pub version: Version,
    /// One word, as conditions have it.
    pub reason: String,
    /// The worker's own words.
    pub message: String,
    /// What the same load needs to go well.
    pub helps: Helps,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was asked for, the first time.
    pub since: Instant,
    /// Whether nobody should wait for it any more.
    pub lasting: bool,
    /// When to try again.
    pub again: Instant,
}

/// What a refused load needs to go well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helps {
    /// Something else has to leave the worker.
    Room,
    /// It may go well by itself.
    Time,
    /// Somebody has to change the files or the manifest.
    Change,
}

impl Refused {
    /// What the worker's `status` means for `version`, which was `asked` for then, and refused before as `before` says.
    #[must_use]
    pub fn new(version: Version, status: &Status, before: Option<&Self>, asked: Instant, now: Instant) -> Self {
        let attempts = before.map_or(0, |before| before.attempts);
        let since = before.map_or(asked, |before| before.since);
        let helps = helps(status);
        let passes = helps != Helps::Change;
        let word = status.metadata().get(trailers::REASON).and_then(|word| word.to_str().ok());
        Self {
            version,
            reason: word.unwrap_or("LoadFailed").to_owned(),
            message: status.message().to_owned(),
            helps,
            attempts: attempts.saturating_add(1),
            since,
            lasting: !passes || now.saturating_duration_since(since) >= PATIENCE,
            again: now + if passes { backoff(attempts, PAUSE_MAX) } else { MENDED },
        }
    }
}

fn helps(status: &Status) -> Helps {
    match status.code() {
        Code::ResourceExhausted => Helps::Room,
        Code::Unavailable | Code::Aborted | Code::Cancelled | Code::DeadlineExceeded => Helps::Time,
        _ => Helps::Change,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_soon_and_waited_for_a_while() {
        let start = Instant::now();
        let mut now = start;
        let version = Version { source: "file:a".to_owned(), digest: None, scale: 1.0 };
        let full = Status::resource_exhausted("all slots are taken");
        let mut refused = Refused::new(version.clone(), &full, None, start, start);
        for attempt in 0..12 {
            let (pause, waited) = (refused.again - now, now - start);
            let longest = Duration::from_millis(250 << attempt).min(PAUSE_MAX);
            assert!(pause >= longest / 2 && pause <= longest, "attempt {attempt}: {pause:?}");
            assert_eq!(refused.lasting, waited >= PATIENCE, "attempt {attempt}, after {waited:?}");
            now = refused.again;
            refused = Refused::new(version.clone(), &full, Some(&refused), now, now);
        }
        assert!(refused.lasting);
        let broken = Refused::new(version, &Status::invalid_argument("no tensors"), None, start, start);
        assert_eq!((broken.lasting, broken.again - start, broken.reason.as_str()), (true, MENDED, "LoadFailed"));
    }
}

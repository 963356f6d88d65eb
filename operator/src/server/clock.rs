//! The API server's time, from the `Date` header of its answers.
//!
//! Certificates are issued by this clock and not by the leading machine's: a leader with a wrong clock would mint
//! certificates that no process accepts. A jump of the time is believed only after it has advanced steadily for a
//! while.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header::DATE};
use tokio::time::Instant;

/// Dates have whole seconds, take time to arrive, and come from servers whose clocks differ slightly.
const TOLERANCE: Duration = Duration::from_secs(30);
/// Duration of steady advance after which a new time is believed.
const CONFIRMED: Duration = Duration::from_secs(300);

/// Reason why the time is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClockError {
    /// No answer had a date yet.
    #[error("the API server has not told the time yet")]
    Unknown,
    /// The time jumped.
    #[error(
        "the API server's clock jumped by {by} s; what depends on the time waits until it is steady for {} s",
        CONFIRMED.as_secs()
    )]
    Jumped {
        /// Seconds of the jump; negative is backwards.
        by: i64,
    },
}

/// Clock that follows the API server's. Clones share one clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerClock(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    believed: Option<Reading>,
    /// A differing time: its first and its latest reading.
    doubted: Option<(Reading, Reading)>,
}

/// A date, and the moment of its arrival.
#[derive(Clone, Copy, Debug)]
struct Reading {
    time: SystemTime,
    at: Instant,
}

impl Reading {
    /// The time that this reading implies for `now`.
    fn now(self, now: Instant) -> SystemTime {
        self.time + now.saturating_duration_since(self.at)
    }

    /// Seconds by which `other` is ahead of this one; negative if it is behind.
    fn off(self, other: Self) -> i64 {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let expected = self.now(other.at);
        match other.time.duration_since(expected) {
            Ok(ahead) => seconds(ahead),
            Err(behind) => -seconds(behind.duration()),
        }
    }

    fn agrees(self, other: Self) -> bool {
        self.off(other).unsigned_abs() <= TOLERANCE.as_secs()
    }
}

impl State {
    fn note(&mut self, read: Reading) {
        match (self.believed, self.doubted) {
            (None, _) => self.believed = Some(read),
            (Some(believed), _) if believed.agrees(read) => *self = Self { believed: Some(read), doubted: None },
            (Some(_), Some((first, last))) if last.agrees(read) => {
                if read.at.saturating_duration_since(first.at) >= CONFIRMED {
                    *self = Self { believed: Some(read), doubted: None };
                } else {
                    self.doubted = Some((first, read));
                }
            }
            (Some(_), _) => self.doubted = Some((read, read)),
        }
    }

    fn now(&self, now: Instant) -> Result<SystemTime, ClockError> {
        let believed = self.believed.ok_or(ClockError::Unknown)?;
        match self.doubted {
            Some((_, last)) => Err(ClockError::Jumped { by: believed.off(last) }),
            None => Ok(believed.now(now)),
        }
    }
}

impl ServerClock {
    /// Takes the date of an answer that has just arrived.
    pub(crate) fn note(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        if let Some(time) = date {
            let read = Reading { time, at: Instant::now() };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).note(read);
        }
    }

    /// The current time.
    ///
    /// # Errors
    /// It is not known.
    pub(crate) fn now(&self) -> Result<SystemTime, ClockError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// The clock's time in seconds after `readings` of (seconds since the start, date).
    fn told(readings: &[(u64, u64)]) -> Result<u64, ClockError> {
        let start = Instant::now();
        let mut state = State::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (when, time) in readings {
            state.note(Reading { time: UNIX_EPOCH + Duration::from_secs(*time), at: at(*when) });
        }
        let last = readings.last().map_or(0, |(when, _)| *when);
        state.now(at(last)).map(|now| now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()))
    }

    #[test]
    fn a_steady_clock_is_followed_and_a_jump_is_not() {
        assert_eq!(told(&[]), Err(ClockError::Unknown));
        assert_eq!(told(&[(0, 1_000)]), Ok(1_000));
        assert_eq!(told(&[(0, 1_000), (10, 1_011)]), Ok(1_011), "a second more or less");
        assert_eq!(told(&[(0, 1_000), (10, 5_010)]), Err(ClockError::Jumped { by: 4_000 }));
        assert_eq!(told(&[(0, 5_000), (10, 1_010)]), Err(ClockError::Jumped { by: -4_000 }));
        assert_eq!(told(&[(0, 1_000), (10, 5_010), (20, 1_020)]), Ok(1_020), "one of several servers was wrong");
    }

    #[test]
    fn a_new_time_is_believed_when_it_goes_on() {
        assert_eq!(told(&[(0, 1_000), (10, 5_010), (200, 5_200)]), Err(ClockError::Jumped { by: 4_000 }));
        assert_eq!(told(&[(0, 1_000), (10, 5_010), (200, 5_200), (310, 5_310)]), Ok(5_310));
        let restless = [(0, 1_000), (10, 5_010), (200, 9_000), (310, 9_110)];
        assert_eq!(told(&restless), Err(ClockError::Jumped { by: 7_800 }), "counted from the last jump");
    }
}

//! The time as the API server has it, from the `Date` of its answers.
//!
//! Certificates are made by this clock and not by that of the machine that happens to lead: all nodes of a cluster
//! measure themselves by one time, and a leader whose clock is wrong would mint what nobody accepts. A time that jumps
//! is not believed before it has gone on steadily for a while.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header::DATE};
use tokio::time::Instant;

/// Answers have whole seconds, travel, and come from servers whose clocks differ a little.
const TOLERANCE: Duration = Duration::from_secs(30);
/// A new time that has gone on steadily for so long is believed.
const CONFIRMED: Duration = Duration::from_secs(300);

/// Why the time is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClockError {
    /// No answer had a date.
    #[error("the API server has not told the time yet")]
    Unknown,
    /// It is another time than it was.
    #[error(
        "the API server's clock jumped by {by} s; what depends on the time waits until it is steady for {} s",
        CONFIRMED.as_secs()
    )]
    Jumped {
        /// Seconds, ahead or back.
        by: i64,
    },
}

/// Follows the API server's clock. Clones are one clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerClock(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    believed: Option<Reading>,
    /// Another time: what it said first, and last.
    doubted: Option<(Reading, Reading)>,
}

/// A time that was read then.
#[derive(Clone, Copy, Debug)]
struct Reading {
    time: SystemTime,
    at: Instant,
}

impl Reading {
    /// What it is at `now`.
    fn now(self, now: Instant) -> SystemTime {
        self.time + now.saturating_duration_since(self.at)
    }

    /// Seconds by which `other` is ahead of this one, or behind.
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
    /// Takes in the date of an answer that has just come.
    pub(crate) fn note(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        if let Some(time) = date {
            let read = Reading { time, at: Instant::now() };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).note(read);
        }
    }

    /// The time now.
    ///
    /// # Errors
    /// When it is not known.
    pub(crate) fn now(&self) -> Result<SystemTime, ClockError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// What the clock says, as seconds, when `readings` of (seconds since the start, time told) have come.
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

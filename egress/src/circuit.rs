//! The circuit of one model: after failures in a row it is not asked for a while, then once to try. Pure.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;
/// Time for which it stays open.
const OPEN: Duration = Duration::from_secs(30);

/// The circuit of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Circuit {
    failures: u32,
    until: Option<Instant>,
    /// A request tries whether the model answers again.
    trying: bool,
}

impl Circuit {
    /// Whether requests should be sent here.
    pub(crate) fn closed(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until) && !self.trying
    }

    /// When it lets a request try, if that is to come.
    pub(crate) fn reopens(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Lets a request through, or not.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        match self.until {
            None => true,
            Some(until) if now >= until && !self.trying => {
                self.trying = true;
                true
            }
            Some(_) => false,
        }
    }

    /// The model answered.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It did not.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            self.until = Some(now + OPEN);
        }
        self.trying = false;
    }

    /// A request ended that says nothing about the model.
    pub(crate) fn released(&mut self) {
        self.trying = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_tries_once() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..FAILURES_MAX - 1 {
            circuit.failed(now);
        }
        circuit.succeeded();
        for _ in 0..FAILURES_MAX {
            assert!(circuit.closed(now) && circuit.admit(now));
            circuit.failed(now);
        }
        assert!(!circuit.closed(now) && !circuit.admit(now));
        let later = now + OPEN;
        assert!(circuit.closed(later) && circuit.admit(later), "one request tries");
        assert!(!circuit.closed(later) && !circuit.admit(later), "one alone");
        circuit.released();
        assert!(circuit.admit(later), "the caller of the trial left");
        circuit.failed(later);
        assert!(!circuit.admit(later));
        assert!(circuit.admit(later + OPEN));
        circuit.succeeded();
        assert!(circuit.admit(later) && circuit.closed(later));
    }
}

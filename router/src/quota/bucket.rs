//! A token bucket: so many units come back in a minute, and that many are there after a pause. Pure.

use std::time::{Duration, Instant};

/// Units that are left, at a time. May be below zero: what was used is known only afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full one of `per_minute` units.
    pub(super) fn full(per_minute: u32, now: Instant) -> Self {
        Self { left: f64::from(per_minute), at: now }
    }

    /// Units that are there at `now`. The rate may have changed since.
    pub(super) fn left(&self, per_minute: u32, now: Instant) -> f64 {
        let back = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(per_minute) / 60.0;
        (self.left + back).min(f64::from(per_minute))
    }

    /// Time until `units` are there; more than there ever are count as all of them.
    pub(super) fn wait(&self, units: f64, per_minute: u32, now: Instant) -> Duration {
        let missing = units.min(f64::from(per_minute)) - self.left(per_minute, now);
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing * 60.0 / f64::from(per_minute)).unwrap_or(Duration::MAX)
    }

    /// Takes units, or gives some back if there are less than none.
    pub(super) fn take(&mut self, units: f64, per_minute: u32, now: Instant) {
        self.left = (self.left(per_minute, now) - units).min(f64::from(per_minute));
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_back_up_to_those_of_a_minute() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut bucket = Bucket::full(60, now);
        bucket.take(60.0, 60, now);
        assert_eq!(bucket.left(60, after(20)).round(), 20.0);
        assert_eq!(bucket.wait(30.0, 60, after(20)).as_secs_f64().round(), 10.0);
        assert_eq!(bucket.left(60, after(600)).round(), 60.0);
        assert_eq!(bucket.wait(1000.0, 60, now), Duration::from_secs(60), "all there ever are");
    }

    #[test]
    fn a_debt_is_paid_before_anything_is_there() {
        let now = Instant::now();
        let mut bucket = Bucket::full(60, now);
        bucket.take(90.0, 60, now);
        assert_eq!(bucket.wait(1.0, 60, now).as_secs_f64().round(), 31.0);
        bucket.take(-200.0, 60, now);
        assert_eq!(bucket.left(60, now), 60.0, "no more than a minute's");
    }
}

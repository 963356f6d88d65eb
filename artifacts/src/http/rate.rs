//! Minimum rate: a connection that trickles is as bad as one that is silent.

use std::time::Duration;

/// Minimum rate of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinimumRate {
    /// Bytes a second, averaged over [`window`](Self::window). Zero: no minimum.
    pub(crate) bytes_per_second: u64,
    /// Averaging window.
    pub(crate) window: Duration,
}

/// Recent rate of one connection.
#[derive(Debug)]
pub(crate) struct Rate {
    minimum: MinimumRate,
    bytes: u64,
    waited: Duration,
}

impl Rate {
    pub(crate) fn new(minimum: MinimumRate) -> Self {
        Self { minimum, bytes: 0, waited: Duration::ZERO }
    }

    /// Counts `bytes` that arrived after `waited`, which excludes time spent on the disk. False if the last window was
    /// too slow.
    pub(crate) fn suffices(&mut self, bytes: usize, waited: Duration) -> bool {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.waited < self.minimum.window {
            return true;
        }
        let enough = self.bytes as f64 >= self.minimum.bytes_per_second as f64 * self.waited.as_secs_f64();
        (self.bytes, self.waited) = (0, Duration::ZERO);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_found_out_and_a_slow_link_is_not() {
        let minimum = MinimumRate { bytes_per_second: 1024, window: Duration::from_secs(30) };
        for (bytes, waited, expected) in [
            (1, 29.0, [true, false, true]),
            (1, 0.5, [true; 3]),
            (1024, 1.0, [true; 3]),
            (40_000, 29.0, [true; 3]),
            (100, 31.0, [false; 3]),
            (40_000, 31.0, [true; 3]),
        ] {
            let mut rate = Rate::new(minimum);
            let found = [(); 3].map(|()| rate.suffices(bytes, Duration::from_secs_f64(waited)));
            assert_eq!(found, expected, "{bytes} bytes every {waited} s");
        }
        let mut rate = Rate::new(minimum);
        let long = (0..120).all(|_| rate.suffices(1023, Duration::from_secs(1)));
        assert!(!long, "just below the minimum");
        let mut rate = Rate::new(MinimumRate { bytes_per_second: 0, ..minimum });
        assert!((0..100).all(|_| rate.suffices(0, Duration::from_secs(10))));
    }
}

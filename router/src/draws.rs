//! Random numbers: for choices between workers, and for samples of requests.

use std::sync::atomic::{AtomicU64, Ordering};

/// SplitMix64 over a counter: well spread, and no lock.
#[derive(Debug, Default)]
pub(crate) struct Draws(AtomicU64);

impl Draws {
    pub(crate) fn draw(&self) -> u64 {
        mixed(self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
    }
}

/// Whether the request of this id is one of the sample of so many percent: the same for the same id, whichever router is asked.
pub(crate) fn is_sampled(id: &str, percent: f64) -> bool {
    let hash = id
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    // A number below 2^53 is exact.
    #[allow(clippy::cast_precision_loss)]
    let share = (mixed(hash) >> 11) as f64 / (1_u64 << 53) as f64;
    share * 100.0 < percent
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_its_share_and_is_the_same_again() {
        let sample = |percent| -> Vec<bool> {
            (0..10_000).map(|number| is_sampled(&format!("request-{number}"), percent)).collect()
        };
        let count = |percent| sample(percent).into_iter().filter(|is| *is).count();
        assert_eq!((count(0.0), count(100.0)), (0, 10_000));
        let fifth = count(20.0);
        assert!((1_900..2_100).contains(&fifth), "{fifth}");
        assert_eq!(sample(20.0), sample(20.0));
        // Who is in a smaller sample is in a larger one.
        assert!(sample(5.0).into_iter().zip(sample(20.0)).all(|(small, large)| !small || large));
    }
}

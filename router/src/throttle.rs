//! Rate limit of the bytes of large bodies, by caller. Decrypting and copying them is work of the network threads, which no
//! priority keeps from decoding's cores.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Bytes per second, and how many at once after a pause.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Bytes of one second.
    pub bytes_per_second: u32,
    /// Bytes at once.
    pub burst: u32,
}

/// A limit for each caller.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: Rate,
    /// Time at which the bytes that a caller has sent are paid for.
    paid: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Throttle {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, paid: Mutex::default() }
    }

    /// Waits until `caller` may have sent so many bytes more. Callers are the names of a file, so they are few.
    pub(crate) async fn wait(&self, caller: &Arc<str>, bytes: usize) {
        let seconds = |bytes: f64| Duration::from_secs_f64(bytes / f64::from(self.rate.bytes_per_second.max(1)));
        let (now, burst) = (Instant::now(), seconds(f64::from(self.rate.burst)));
        let paid = {
            let mut all = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = now.checked_sub(burst).unwrap_or(now);
            let paid = all.entry(Arc::clone(caller)).or_insert(idle);
            *paid = (*paid).max(idle) + seconds(bytes as f64);
            *paid
        };
        sleep_until(paid).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_a_rate_of_its_own_and_a_burst() {
        let throttle = Throttle::new(Rate { bytes_per_second: 100, burst: 1000 });
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        tokio::time::advance(Duration::from_secs(60)).await;
        let begun = Instant::now();
        throttle.wait(&a, 1000).await;
        assert_eq!(begun.elapsed().as_secs(), 0);
        throttle.wait(&a, 500).await;
        assert_eq!(begun.elapsed().as_secs(), 5);
        throttle.wait(&b, 1000).await;
        assert_eq!(begun.elapsed().as_secs(), 5);
        tokio::time::advance(Duration::from_secs(5)).await;
        throttle.wait(&a, 600).await;
        assert_eq!(begun.elapsed().as_secs(), 11);
    }
}

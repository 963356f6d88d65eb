//! Adapters in the memory of the host: the way back into a slot without a file.

use std::collections::BTreeMap;

use super::slots::Generation;

/// Prepared adapters up to a number of bytes; the least recently used leaves first.
#[derive(Debug)]
pub(super) struct HostCache<A> {
    kept: BTreeMap<Generation, Kept<A>>,
    bytes: u64,
    bytes_max: u64,
    clock: u64,
}

#[derive(Debug)]
struct Kept<A> {
    adapter: A,
    bytes: u64,
    used: u64,
}

impl<A: Clone> HostCache<A> {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { kept: BTreeMap::new(), bytes: 0, bytes_max, clock: 0 }
    }

    /// Keeps `adapter`, if it fits at all; others leave for it. What leaves is given back, to be dropped without the lock.
    pub(super) fn keep(&mut self, version: Generation, adapter: A, bytes: u64) -> Vec<A> {
        let mut left: Vec<A> = self.remove(version).into_iter().collect();
        if bytes > self.bytes_max {
            left.push(adapter);
            return left;
        }
        self.clock += 1;
        self.bytes += bytes;
        self.kept.insert(version, Kept { adapter, bytes, used: self.clock });
        while self.bytes > self.bytes_max {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(&oldest, _)| oldest);
            let Some(adapter) = oldest.and_then(|oldest| self.remove(oldest)) else { break };
            left.push(adapter);
        }
        left
    }

    /// The adapter of `version`, used now.
    pub(super) fn get(&mut self, version: Generation) -> Option<A> {
        self.clock += 1;
        let kept = self.kept.get_mut(&version)?;
        kept.used = self.clock;
        Some(kept.adapter.clone())
    }

    pub(super) fn holds(&self, version: Generation) -> bool {
        self.kept.contains_key(&version)
    }

    pub(super) fn remove(&mut self, version: Generation) -> Option<A> {
        let Kept { adapter, bytes, .. } = self.kept.remove(&version)?;
        self.bytes -= bytes;
        Some(adapter)
    }

    /// Bytes that it keeps.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_adapter_leaves_for_another() {
        let mut cache = HostCache::new(10);
        assert!(cache.keep(1, "one", 4).is_empty() && cache.keep(2, "two", 4).is_empty());
        assert_eq!(cache.get(1), Some("one"));
        assert_eq!(cache.keep(3, "three", 6), ["two"]);
        assert_eq!((cache.bytes(), cache.holds(2)), (10, false));
        assert_eq!(cache.keep(4, "four", 11), ["four"], "larger than the cache");
        assert_eq!(cache.keep(1, "one again", 2), ["one"]);
        assert_eq!(cache.bytes(), 8);
        assert_eq!((cache.remove(3), cache.remove(3), cache.get(3), cache.bytes()), (Some("three"), None, None, 2));
    }
}

//! Placement: the workers of a base that have an adapter. Pure.
//!
//! Every adapter ranks the workers by a hash of both names, and is on the first ones (highest random weight). So every process
//! that asks finds the same workers, adapters spread evenly, and a worker that comes or goes moves only the adapters that it
//! has.

use sha2::{Digest as _, Sha256};

/// Those of `workers`, by name, that have `adapter`: `replicas` of them, or all.
#[must_use]
pub fn place<'w>(adapter: &str, replicas: Option<u32>, workers: impl IntoIterator<Item = &'w str>) -> Vec<&'w str> {
    let mut workers: Vec<&str> = workers.into_iter().collect();
    let Some(count) = replicas.and_then(|count| usize::try_from(count).ok()) else { return workers };
    if count < workers.len() {
        workers.sort_by_cached_key(|worker| std::cmp::Reverse(weight(adapter, worker)));
        workers.truncate(count);
    }
    workers
}

/// Weight of `worker` for `adapter`. The same in every version of this program: a new one must not move adapters.
fn weight(adapter: &str, worker: &str) -> [u8; 32] {
    Sha256::new().chain_update(adapter).chain_update([0]).chain_update(worker).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn workers(count: usize) -> Vec<String> {
        (0..count).map(|worker| format!("smollm2-{worker}")).collect()
    }

    fn names(workers: &[String]) -> impl Iterator<Item = &str> {
        workers.iter().map(String::as_str)
    }

    #[test]
    fn without_a_number_it_is_everywhere() {
        let all = workers(3);
        assert_eq!(place("banking", None, names(&all)), ["smollm2-0", "smollm2-1", "smollm2-2"]);
        assert_eq!(place("banking", Some(5), names(&all)).len(), 3);
        assert!(place("banking", Some(2), []).is_empty());
    }

    #[test]
    fn adapters_spread_over_the_workers() {
        let all = workers(8);
        let mut counts = BTreeMap::<&str, usize>::new();
        let adapters: Vec<String> = (0..4_000).map(|adapter| format!("adapter-{adapter}")).collect();
        for adapter in &adapters {
            let placed = place(adapter, Some(2), names(&all));
            assert_eq!(placed.len(), 2);
            placed.into_iter().for_each(|worker| *counts.entry(worker).or_default() += 1);
        }
        // 1,000 each on average; the standard deviation is 28.
        assert!(counts.values().all(|count| (880..1_120).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_worker_that_comes_or_goes_moves_few_adapters() {
        let (before, after) = (workers(8), workers(9));
        let adapters: Vec<String> = (0..2_000).map(|adapter| format!("adapter-{adapter}")).collect();
        let moved = adapters.iter().filter(|adapter| {
            let [old, new] = [&before, &after].map(|workers| place(adapter, Some(1), names(workers)));
            assert!(old == new || new == ["smollm2-8"], "moved between workers that stay");
            old != new
        });
        // A ninth of them: 222; the standard deviation is 14.
        let moved = moved.count();
        assert!((160..290).contains(&moved), "{moved}");
    }

    #[test]
    fn the_order_of_the_workers_does_not_count() {
        let all = workers(5);
        let reversed: Vec<String> = all.iter().rev().cloned().collect();
        let [mut one, mut other] = [&all, &reversed].map(|workers| place("banking", Some(2), names(workers)));
        one.sort_unstable();
        other.sort_unstable();
        assert_eq!(one, other);
    }
}

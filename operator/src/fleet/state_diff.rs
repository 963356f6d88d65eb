//! Differences between two states of a worker that need a reconciliation; a change of load does not.

use std::collections::BTreeMap;

use slm_proto::v1::WorkerState;

/// Names of the adapters that changed. Each load has its own generation: the same files with another scale are another
/// load.
pub(super) fn changed(before: &WorkerState, now: &WorkerState) -> Vec<String> {
    let told = |state: &WorkerState| -> BTreeMap<(String, String, u64), i32> {
        state.adapters.iter().map(|a| ((a.name.clone(), a.digest.clone(), a.generation), a.phase)).collect()
    };
    let (before, now) = (told(before), told(now));
    let mut names: Vec<String> = before
        .iter()
        .filter(|(key, phase)| now.get(*key) != Some(phase))
        .chain(now.iter().filter(|(key, phase)| before.get(*key) != Some(phase)))
        .map(|((name, ..), _)| name.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Whether the worker itself changed.
pub(super) fn worker_changed(before: &WorkerState, now: &WorkerState) -> bool {
    let said =
        |state: &WorkerState| [&state.model_digest, &state.execution_provider, &state.flavour].map(String::clone);
    said(before) != said(now) || before.draining != now.draining
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::{AdapterPhase, AdapterState};

    use super::*;

    fn state(adapters: &[(&str, &str, AdapterPhase)], running: u32) -> WorkerState {
        let adapters = adapters.iter().map(|(name, digest, phase)| AdapterState {
            name: (*name).to_owned(),
            digest: (*digest).to_owned(),
            phase: (*phase).into(),
            ..Default::default()
        });
        WorkerState { adapters: adapters.collect(), sequences_running: running, ..Default::default() }
    }

    #[test]
    fn load_concerns_nobody_and_a_swap_one() {
        use AdapterPhase::{Retiring, Serving};
        let before = state(&[("a", "1", Serving), ("b", "1", Serving)], 0);
        assert!(changed(&before, &state(&[("a", "1", Serving), ("b", "1", Serving)], 5)).is_empty());
        let swapped = state(&[("a", "1", Retiring), ("a", "2", Serving), ("b", "1", Serving)], 5);
        assert_eq!(changed(&before, &swapped), ["a"]);
        assert_eq!(changed(&before, &state(&[], 0)), ["a", "b"]);
        let mut scaled = before.clone();
        scaled.adapters[1].generation += 1;
        assert_eq!(changed(&before, &scaled), ["b"]);
    }
}

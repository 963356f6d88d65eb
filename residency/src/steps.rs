//! What to ask of a worker next: a pure function of what should be, what the worker says that it holds and what it was
//! asked for. Called after every event and looking at everything anew, so that a step that was lost is simply taken
//! again.

use std::time::Instant;

use crate::{
    holdings::{Holdings, Stand},
    version::{Version, Wanted},
};

/// One thing to ask of a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Load an adapter, beside or in place of what has its name.
    Load {
        /// Its name.
        name: String,
        /// What is wanted.
        version: Version,
    },
    /// Drop an adapter.
    Unload {
        /// Its name.
        name: String,
        /// The version that is meant.
        digest: String,
    },
}

/// What to ask of the worker next; steps of one call may be carried out in any order. `keep` holds on to an adapter that
/// nobody wants any more: somebody is still sent there.
#[must_use]
pub fn steps(wanted: &Wanted, holdings: &Holdings, now: Instant, keep: impl Fn(&str) -> bool) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, version) in wanted {
        let due = match holdings.stand(name, version) {
            Stand::Missing => true,
            Stand::Refused(refused) => refused.again <= now,
            Stand::Resident | Stand::Loading => false,
        };
        // One load of a name at a time: the outcome of the one that runs decides what comes next.
        if due && !holdings.loading.contains_key(name) {
            steps.push(Step::Load { name: name.clone(), version: version.clone() });
        }
    }
    for (name, resident) in &holdings.resident {
        let waits = holdings.unloading.get(name).is_some_and(|unloading| unloading.again.is_none_or(|at| at > now));
        if !wanted.contains_key(name) && !waits && !keep(name) {
            steps.push(Step::Unload { name: name.clone(), digest: resident.digest.clone() });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use slm_proto::v1::{AdapterPhase, AdapterState, WorkerState};

    use super::*;

    fn wanted(source: &str) -> Wanted {
        let version = Version { source: source.to_owned(), digest: None, scale: 1.0 };
        BTreeMap::from([("banking".to_owned(), version)])
    }

    #[test]
    fn what_is_missing_is_loaded_and_what_is_left_over_goes() {
        let now = Instant::now();
        let wants = wanted("oci://r/banking:2");
        let there = AdapterState {
            name: "banking".to_owned(),
            source: "oci://r/banking:1".to_owned(),
            digest: "sha256:1".to_owned(),
            phase: AdapterPhase::Serving.into(),
            scale: 1.0,
            ..Default::default()
        };
        let mut old = Holdings::default();
        old.tell(&WorkerState { adapters: vec![there], ..Default::default() }, now);
        let load = Step::Load { name: "banking".to_owned(), version: wants["banking"].clone() };
        assert_eq!(steps(&wants, &old, now, |_| false), std::slice::from_ref(&load));
        assert_eq!(steps(&wants, &Holdings::default(), now, |_| false), [load]);
        let unload = Step::Unload { name: "banking".to_owned(), digest: "sha256:1".to_owned() };
        assert_eq!(steps(&BTreeMap::new(), &old, now, |_| false), [unload]);
        assert_eq!(steps(&BTreeMap::new(), &old, now, |_| true), []);
    }
}

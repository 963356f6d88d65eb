//! The next requests to a worker: a pure function of the desired adapters and the observed state.
//!
//! Called after every event. It keeps no memory of its own, so a request that was lost is simply made again.

use std::time::Instant;

use crate::{
    action::AdapterAction,
    holdings::{Holdings, VersionState},
    version::DesiredAdapters,
};

/// Bound on the loads of a worker that are under way. It packs a few at a time; the others would wait there, and their time limits
/// would pass. Loads that take long do not count, so that sources that hang do not keep others out.
const LOADS_MAX: usize = 16;

/// The next requests to the worker; those of one call may be carried out in any order. An adapter for which `keep` is true
/// is not unloaded: requests are still routed to it.
#[must_use]
pub fn next_actions(
    wanted: &DesiredAdapters,
    holdings: &Holdings,
    now: Instant,
    keep: impl Fn(&str) -> bool,
) -> Vec<AdapterAction> {
    let mut actions = Vec::new();
    let mut under_way = holdings.under_way(now);
    // Pinned ones first: without them a worker is not what its users were promised.
    let (pinned, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, version)| version.pinned);
    for (name, version) in pinned.into_iter().chain(others) {
        let due = match holdings.version_state(name, version) {
            VersionState::Missing => true,
            VersionState::Refused(refused) => refused.again <= now,
            VersionState::Resident | VersionState::Loading => false,
        };
        // What runs and may bring this version is waited for. What runs for another one gives way: its source may hang.
        let runs = holdings.loading.get(name).is_some_and(|loading| loading.may_bring(version));
        let replaces = holdings.loading.contains_key(name);
        if due && !runs && (replaces || under_way < LOADS_MAX) {
            under_way += usize::from(!replaces);
            actions.push(AdapterAction::Load { name: name.clone(), version: version.clone() });
        }
    }
    for name in holdings.loading.keys().filter(|name| !wanted.contains_key(*name)) {
        actions.push(AdapterAction::Cancel { name: name.clone() });
    }
    for (name, resident) in &holdings.resident {
        let waits = holdings.unloading.get(name).is_some_and(|unloading| unloading.again.is_none_or(|at| at > now));
        if !wanted.contains_key(name) && !waits && !keep(name) {
            actions.push(AdapterAction::Unload { name: name.clone(), digest: resident.digest.clone() });
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use slm_proto::v1::{AdapterPhase, AdapterState, WorkerState};

    use super::*;
    use crate::version::Version;

    fn wanted(source: &str) -> DesiredAdapters {
        let version = Version { source: source.to_owned(), digest: None, scale: 1.0, pinned: false };
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
        let load = AdapterAction::Load { name: "banking".to_owned(), version: wants["banking"].clone() };
        assert_eq!(next_actions(&wants, &old, now, |_| false), std::slice::from_ref(&load));
        assert_eq!(next_actions(&wants, &Holdings::default(), now, |_| false), [load]);
        let unload = AdapterAction::Unload { name: "banking".to_owned(), digest: "sha256:1".to_owned() };
        assert_eq!(next_actions(&BTreeMap::new(), &old, now, |_| false), [unload]);
        assert_eq!(next_actions(&BTreeMap::new(), &old, now, |_| true), []);
    }

    #[test]
    fn loads_are_bounded_and_pinned_adapters_come_first() {
        let now = Instant::now();
        let version = |name: &str| Version { pinned: name == "z", ..wanted("oci://r/a:1")["banking"].clone() };
        let names = (0..LOADS_MAX + 3).map(|name| format!("a{name:02}")).chain(["z".to_owned()]);
        let wants: DesiredAdapters = names.map(|name| (name.clone(), version(&name))).collect();
        let mut holdings = Holdings::default();
        let first = next_actions(&wants, &holdings, now, |_| false);
        assert_eq!(first.len(), LOADS_MAX);
        assert!(matches!(&first[0], AdapterAction::Load { name, .. } if name == "z"));
        first.iter().for_each(|action| holdings.ask(action, now));
        assert_eq!(next_actions(&wants, &holdings, now, |_| false), []);
        holdings.loading.remove("z");
        holdings.loading.remove("a03");
        let next = next_actions(&wants, &holdings, now, |_| false);
        assert_eq!(next.len(), 2, "one that is asked for again, and one more");
    }

    fn loading(source: &str, now: Instant) -> Holdings {
        let mut holdings = Holdings::default();
        let version = wanted(source)["banking"].clone();
        holdings.ask(&AdapterAction::Load { name: "banking".to_owned(), version }, now);
        holdings
    }

    /// The source of the first version hangs; the manifest is mended.
    #[test]
    fn a_load_that_runs_gives_way_to_another_version() {
        let now = Instant::now();
        let holdings = loading("oci://r/banking:1", now);
        assert_eq!(next_actions(&wanted("oci://r/banking:1"), &holdings, now, |_| false), []);
        let wants = wanted("oci://r/banking:2");
        let load = AdapterAction::Load { name: "banking".to_owned(), version: wants["banking"].clone() };
        assert_eq!(next_actions(&wants, &holdings, now, |_| false), [load]);
        let mut rescaled = wanted("oci://r/banking:1");
        rescaled.entry("banking".to_owned()).and_modify(|version| version.scale = 2.0);
        assert_eq!(next_actions(&rescaled, &holdings, now, |_| false).len(), 1);
    }

    /// Another worker told what the tag is: the load of that tag goes on here.
    #[test]
    fn a_load_that_may_bring_the_version_goes_on() {
        let now = Instant::now();
        let holdings = loading("oci://r/banking:1", now);
        let mut resolved = wanted("oci://r/banking:1");
        resolved.entry("banking".to_owned()).and_modify(|version| version.digest = Some("sha256:1".to_owned()));
        assert_eq!(next_actions(&resolved, &holdings, now, |_| false), []);
    }

    #[test]
    fn a_load_that_nobody_wants_is_cancelled() {
        let now = Instant::now();
        let mut holdings = loading("oci://r/banking:1", now);
        let cancel = AdapterAction::Cancel { name: "banking".to_owned() };
        assert_eq!(next_actions(&BTreeMap::new(), &holdings, now, |_| false), std::slice::from_ref(&cancel));
        holdings.ask(&cancel, now);
        assert_eq!(next_actions(&BTreeMap::new(), &holdings, now, |_| false), []);
    }
}

//! Observed state of one worker: resident adapters, requests under way, refusals. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use slm_proto::v1::WorkerState;
use tonic::{Code, Status};

use crate::{
    action::AdapterAction,
    pause::backoff,
    refusal::{Refused, RetryWhen},
    version::{DesiredAdapters, Resident, Version, resident},
};

/// Longest pause between attempts to unload: only the connection can fail.
const DROP_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest time that a new worker stays unready for a load that runs; after that it serves without. Fetching and packing an
/// adapter of some 100 MB takes less, and a rollout of many workers must not stall for one source that hangs.
pub const LOAD_WAIT_MAX: Duration = Duration::from_secs(60);

/// Observed state of one worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holdings {
    /// Adapters that new requests may name, by its last state.
    pub resident: BTreeMap<String, Resident>,
    /// Loads under way: requested, and not yet shown by its state.
    pub loading: BTreeMap<String, Loading>,
    /// Versions that could not be loaded.
    pub refused: BTreeMap<String, Refused>,
    /// Unloads under way: requested, and not yet shown by its state.
    pub unloading: BTreeMap<String, Unloading>,
    /// Adapter slots in use, with versions that only finish running requests.
    held: usize,
}

/// A load under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Loading {
    /// The version to load.
    pub version: Version,
    /// Time of the request.
    asked: Instant,
}

impl Loading {
    /// True when its outcome may be `version`: the same source, scale and pin. The digest of a source without one is unknown until
    /// it is loaded.
    #[must_use]
    pub fn may_bring(&self, version: &Version) -> bool {
        #[allow(clippy::float_cmp)] // The same number, handed through.
        let same_scale = self.version.scale == version.scale;
        let same_digest = self.version.digest.is_none() || self.version.digest == version.digest;
        let same_rest = self.version.pinned == version.pinned && self.version.source == version.source;
        same_scale && same_digest && same_rest
    }

    /// Time from which readiness no longer waits for it.
    fn overdue(&self) -> Instant {
        self.asked + LOAD_WAIT_MAX
    }
}

/// An unload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unloading {
    /// Digest of the version to unload.
    pub digest: String,
    /// Attempts that failed.
    failed: u32,
    /// Time of the next attempt, after one that failed.
    pub again: Option<Instant>,
}

/// State of a version on a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VersionState<'h> {
    /// New requests get it.
    Resident,
    /// Refused; may be requested again.
    Refused(&'h Refused),
    /// Requested for the first time.
    Loading,
    /// Neither resident nor requested.
    Missing,
}

impl Holdings {
    /// Records a request to the worker.
    pub fn ask(&mut self, action: &AdapterAction, now: Instant) {
        match action {
            AdapterAction::Load { name, version } => {
                self.loading.insert(name.clone(), Loading { version: version.clone(), asked: now });
            }
            AdapterAction::Cancel { name } => {
                self.loading.remove(name);
            }
            AdapterAction::Unload { name, digest } => {
                let before = self.unloading.get(name).filter(|before| before.digest == *digest);
                let failed = before.map_or(0, |before| before.failed);
                self.unloading.insert(name.clone(), Unloading { digest: digest.clone(), failed, again: None });
            }
        }
    }

    /// Takes in a state of the worker, which settles loads and unloads that it shows. When an adapter has left, loads that were
    /// refused for want of a slot are due at once.
    pub fn tell(&mut self, state: &WorkerState, now: Instant) {
        self.resident = resident(state);
        let is_there = |name: &String, version: &Version| self.resident.get(name).is_some_and(|held| version.is(held));
        self.loading.retain(|name, loading| !is_there(name, &loading.version));
        self.refused.retain(|name, refused| !is_there(name, &refused.version));
        self.unloading
            .retain(|name, unloading| self.resident.get(name).is_some_and(|held| held.digest == unloading.digest));
        if state.adapters.len() < self.held {
            for refused in self.refused.values_mut().filter(|refused| refused.retry_when == RetryWhen::SlotFree) {
                refused.again = refused.again.min(now);
            }
        }
        self.held = state.adapters.len();
    }

    /// Takes in the end of a load; returns its refusal, if it was refused. Success shows in the worker's state, which alone
    /// counts. The outcome of a load that another has replaced is ignored.
    pub fn loaded(
        &mut self,
        name: &str,
        version: &Version,
        outcome: Result<(), Status>,
        now: Instant,
    ) -> Option<&Refused> {
        let status = outcome.err()?;
        if self.loading.get(name).is_some_and(|loading| loading.version != *version) {
            return None;
        }
        let asked = self.loading.get(name).filter(|loading| loading.version == *version).map(|loading| loading.asked);
        if asked.is_some() {
            self.loading.remove(name);
        }
        let before = self.refusal(name, version);
        let refused = Refused::new(version.clone(), &status, before, asked.unwrap_or(now), now);
        self.refused.insert(name.to_owned(), refused);
        self.refused.get(name)
    }

    /// Takes in the end of an unload. NOT_FOUND counts as success; the state shows it. After any other failure the unload is
    /// requested again after a pause.
    pub fn unloaded(&mut self, name: &str, digest: &str, outcome: Result<(), Status>, now: Instant) {
        let Err(status) = outcome else { return };
        let asked = self.unloading.get_mut(name).filter(|unloading| unloading.digest == digest);
        if let Some(unloading) = asked.filter(|_| status.code() != Code::NotFound) {
            unloading.again = Some(now + backoff(unloading.failed, DROP_PAUSE_MAX));
            unloading.failed = unloading.failed.saturating_add(1);
        }
    }

    /// The worker's state is unknown: its stream broke. Refusals are kept, for it would refuse the same again.
    pub fn lost(&mut self) {
        *self = Self { refused: std::mem::take(&mut self.refused), ..Self::default() };
    }

    /// The state of `version`.
    #[must_use]
    pub fn version_state(&self, name: &str, version: &Version) -> VersionState<'_> {
        if self.resident.get(name).is_some_and(|resident| version.is(resident)) {
            VersionState::Resident
        } else if let Some(refused) = self.refusal(name, version) {
            VersionState::Refused(refused)
        } else if self.loading.get(name).is_some_and(|loading| loading.may_bring(version)) {
            VersionState::Loading
        } else {
            VersionState::Missing
        }
    }

    /// True when every desired adapter is resident or no longer waited for: its load was refused for good, or takes longer
    /// than [`LOAD_WAIT_MAX`].
    #[must_use]
    pub fn complete(&self, wanted: &DesiredAdapters, now: Instant) -> bool {
        wanted.iter().all(|(name, version)| match self.version_state(name, version) {
            VersionState::Resident => true,
            VersionState::Refused(refused) => refused.lasting,
            VersionState::Loading => self.loading.get(name).is_some_and(|loading| loading.overdue() <= now),
            VersionState::Missing => false,
        })
    }

    /// Loads under way, without those that take longer than [`LOAD_WAIT_MAX`].
    #[must_use]
    pub(crate) fn under_way(&self, now: Instant) -> usize {
        self.loading.values().filter(|loading| loading.overdue() > now).count()
    }

    /// Time at which [`next_actions()`](crate::next_actions()) or [`complete`](Self::complete) may change their answer without
    /// an event, after a call at `last` or later.
    #[must_use]
    pub fn next_attempt(&self, last: Instant) -> Option<Instant> {
        let loads = self.refused.values().map(|refused| refused.again);
        let drops = self.unloading.values().filter_map(|unloading| unloading.again);
        let overdue = self.loading.values().map(Loading::overdue);
        loads.chain(drops).chain(overdue).filter(|again| *again > last).min()
    }

    /// The refusal of exactly this version, if there is one.
    fn refusal(&self, name: &str, version: &Version) -> Option<&Refused> {
        self.refused.get(name).filter(|refused| refused.version == *version)
    }
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::{AdapterPhase, AdapterState};

    use super::*;
    use crate::next_actions::next_actions;

    fn wanted(source: &str) -> DesiredAdapters {
        let version = Version { source: source.to_owned(), digest: None, scale: 1.0, pinned: false };
        BTreeMap::from([("banking".to_owned(), version)])
    }

    fn state(adapters: &[(&str, &str, AdapterPhase)]) -> WorkerState {
        let adapters = adapters.iter().map(|(name, source, phase)| AdapterState {
            name: (*name).to_owned(),
            source: (*source).to_owned(),
            digest: format!("sha256:{source}"),
            phase: (*phase).into(),
            scale: 1.0,
            ..Default::default()
        });
        WorkerState { adapters: adapters.collect(), ..Default::default() }
    }

    fn full() -> Result<(), Status> {
        Err(Status::resource_exhausted("all slots are taken"))
    }

    #[test]
    fn nothing_is_asked_for_twice() {
        let now = Instant::now();
        let wants = wanted("a:1");
        let mut holdings = Holdings::default();
        for action in next_actions(&wants, &holdings, now, |_| false) {
            holdings.ask(&action, now);
        }
        assert_eq!(next_actions(&wants, &holdings, now, |_| false), []);
        holdings.tell(&state(&[("banking", "a:1", AdapterPhase::Serving)]), now);
        assert!(holdings.loading.is_empty() && holdings.complete(&wants, now));
        for action in next_actions(&BTreeMap::new(), &holdings, now, |_| false) {
            holdings.ask(&action, now);
        }
        assert_eq!(next_actions(&BTreeMap::new(), &holdings, now, |_| false), []);
    }

    #[test]
    fn a_refused_version_waits_for_its_time_or_for_another_version() {
        let now = Instant::now();
        let wants = wanted("a:1");
        let mut holdings = Holdings::default();
        holdings.ask(&AdapterAction::Load { name: "banking".to_owned(), version: wants["banking"].clone() }, now);
        holdings.loaded("banking", &wants["banking"], Err(Status::invalid_argument("no tensors")), now);
        assert!(holdings.loading.is_empty() && holdings.complete(&wants, now));
        assert_eq!(next_actions(&wants, &holdings, now, |_| false), []);
        assert_eq!(next_actions(&wanted("a:2"), &holdings, now, |_| false).len(), 1);
        let again = holdings.next_attempt(now).expect("another attempt");
        assert_eq!(next_actions(&wants, &holdings, again, |_| false).len(), 1);
        holdings.tell(&state(&[("banking", "a:1", AdapterPhase::Serving)]), again);
        assert_eq!(holdings.version_state("banking", &wants["banking"]), VersionState::Resident);
        assert_eq!(holdings.next_attempt(now), None, "a refusal is over when the version is there");
    }

    #[test]
    fn a_load_that_takes_too_long_holds_no_worker_back() {
        let now = Instant::now();
        let wants = wanted("a:1");
        let mut holdings = Holdings::default();
        holdings.ask(&AdapterAction::Load { name: "banking".to_owned(), version: wants["banking"].clone() }, now);
        assert!(!holdings.complete(&wants, now + LOAD_WAIT_MAX / 2));
        let overdue = holdings.next_attempt(now).expect("a time to look again");
        assert_eq!(overdue, now + LOAD_WAIT_MAX);
        assert!(holdings.complete(&wants, overdue));
        assert_eq!(holdings.next_attempt(overdue), None);
        holdings.loaded("banking", &wants["banking"], Err(Status::deadline_exceeded("too long")), overdue);
        assert!(holdings.complete(&wants, overdue), "and when it is tried again");
        assert_eq!(
            holdings.version_state("banking", &wants["banking"]),
            VersionState::Refused(&holdings.refused["banking"])
        );
    }

    #[test]
    fn the_outcome_of_a_load_that_was_replaced_says_nothing() {
        let now = Instant::now();
        let mut holdings = Holdings::default();
        for source in ["a:1", "a:2"] {
            let version = wanted(source)["banking"].clone();
            holdings.ask(&AdapterAction::Load { name: "banking".to_owned(), version }, now);
        }
        let [former, latter] = ["a:1", "a:2"].map(|source| wanted(source)["banking"].clone());
        assert_eq!(holdings.loaded("banking", &former, Err(Status::cancelled("gave way")), now), None);
        assert_eq!(holdings.version_state("banking", &latter), VersionState::Loading);
    }

    #[test]
    fn room_that_is_made_is_used_at_once() {
        use AdapterPhase::{Retiring, Serving};
        let now = Instant::now();
        let wants = wanted("a:2");
        let mut holdings = Holdings::default();
        holdings.tell(&state(&[("banking", "a:1", Serving), ("travel", "t:1", Retiring)]), now);
        holdings.loaded("banking", &wants["banking"], full(), now);
        assert!(!holdings.complete(&wants, now), "it may go well soon");
        assert_eq!(next_actions(&wants, &holdings, now, |_| false), []);
        holdings.tell(&state(&[("banking", "a:1", Serving)]), now);
        assert_eq!(next_actions(&wants, &holdings, now, |_| false).len(), 1);
    }

    #[test]
    fn a_drop_that_failed_is_asked_for_again_and_one_of_another_version_is_another() {
        let now = Instant::now();
        let none = DesiredAdapters::new();
        let mut holdings = Holdings::default();
        holdings.tell(&state(&[("banking", "a:1", AdapterPhase::Serving)]), now);
        let drop = next_actions(&none, &holdings, now, |_| false).remove(0);
        holdings.ask(&drop, now);
        holdings.unloaded("banking", "sha256:a:1", Err(Status::unavailable("away")), now);
        assert_eq!(next_actions(&none, &holdings, now, |_| false), []);
        let again = holdings.next_attempt(now).expect("another attempt");
        assert_eq!(next_actions(&none, &holdings, again, |_| false), std::slice::from_ref(&drop));
        holdings.ask(&drop, now);
        holdings.unloaded("banking", "sha256:a:1", Err(Status::not_found("not here")), again);
        assert_eq!(holdings.next_attempt(now), None, "gone is gone");
        holdings.tell(&state(&[("banking", "a:2", AdapterPhase::Serving)]), again);
        assert_eq!(next_actions(&none, &holdings, again, |_| false).len(), 1);
    }

    #[test]
    fn a_worker_that_is_lost_keeps_only_its_refusals() {
        let now = Instant::now();
        let wants = wanted("a:1");
        let mut holdings = Holdings::default();
        holdings.tell(&state(&[("travel", "t:1", AdapterPhase::Serving)]), now);
        holdings.loaded("banking", &wants["banking"], full(), now);
        holdings.lost();
        assert!(holdings.resident.is_empty() && holdings.refused.contains_key("banking"));
    }
}

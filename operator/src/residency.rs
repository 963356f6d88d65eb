//! Which adapters a worker should load and drop next: a pure function of what should be, what the worker says that it
//! holds and what it was asked for. Called after every event and looking at everything anew, so that a step that was
//! lost is simply taken again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// A version of an adapter, as somebody wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Where it comes from.
    pub source: String,
    /// What it has to be, when that is known: the digest of the artifact as it travels, or that of its contents.
    pub digest: Option<String>,
    /// Multiplies its own scaling.
    pub scale: f32,
}

/// A version of an adapter, as a worker serves it to new requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resident {
    /// Where it came from.
    pub source: String,
    /// Digest of the artifact as it travelled; empty for files in place.
    pub source_digest: String,
    /// Digest of its contents: its identity.
    pub digest: String,
    /// Multiplies its own scaling.
    pub scale: f32,
}

/// A version that a worker could not load.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Which.
    pub version: Version,
    /// One word, as conditions have it.
    pub reason: String,
    /// The worker's own words.
    pub message: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When to try again; `None` when only another version helps.
    pub again: Option<Instant>,
}

/// What one worker holds, and what it was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holdings {
    /// Adapters that new requests may name.
    pub resident: BTreeMap<String, Resident>,
    /// Loads whose outcome is not known yet.
    pub loading: BTreeMap<String, Version>,
    /// Versions that could not be loaded.
    pub refused: BTreeMap<String, Refused>,
    /// Drops that the worker's state does not show yet.
    pub unloading: BTreeSet<String>,
}

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

impl Version {
    /// Whether `resident` is this version.
    #[must_use]
    pub fn is(&self, resident: &Resident) -> bool {
        #[allow(clippy::float_cmp)] // The same number, handed through.
        let same_scale = self.scale == resident.scale;
        same_scale
            && match &self.digest {
                Some(digest) => *digest == resident.digest || *digest == resident.source_digest,
                None => self.source == resident.source,
            }
    }
}

impl Holdings {
    /// Takes in what the worker says: with it comes what has become of loads and drops.
    pub fn tell(&mut self, resident: BTreeMap<String, Resident>) {
        self.loading.retain(|name, version| !resident.get(name).is_some_and(|resident| version.is(resident)));
        self.unloading.retain(|name| resident.contains_key(name));
        self.resident = resident;
    }

    /// Takes in that `version` could not be loaded.
    pub fn refuse(&mut self, name: &str, refused: Refused) {
        self.loading.remove(name);
        self.refused.insert(name.to_owned(), refused);
    }

    /// Why exactly this version is not there, if the worker said so.
    #[must_use]
    pub fn refusal(&self, name: &str, version: &Version) -> Option<&Refused> {
        self.refused.get(name).filter(|refused| refused.version == *version)
    }

    /// Whether every wanted adapter is there, or will not come.
    #[must_use]
    pub fn complete(&self, wanted: &BTreeMap<String, Version>) -> bool {
        wanted.iter().all(|(name, version)| {
            self.resident.get(name).is_some_and(|resident| version.is(resident))
                || self.refusal(name, version).is_some()
        })
    }
}

/// What to ask of the worker next. `keep` holds on to an adapter that nobody wants any more: somebody is still sent
/// there.
#[must_use]
pub fn steps(
    wanted: &BTreeMap<String, Version>,
    holdings: &Holdings,
    now: Instant,
    keep: impl Fn(&str) -> bool,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, version) in wanted {
        let there = holdings.resident.get(name).is_some_and(|resident| version.is(resident));
        let waits =
            holdings.refusal(name, version).is_some_and(|refused| refused.again.is_none_or(|again| again > now));
        // One load of a name at a time: the outcome of the one that runs decides what comes next.
        if !there && !waits && !holdings.loading.contains_key(name) {
            steps.push(Step::Load { name: name.clone(), version: version.clone() });
        }
    }
    for (name, resident) in &holdings.resident {
        if !wanted.contains_key(name) && !holdings.unloading.contains(name) && !keep(name) {
            steps.push(Step::Unload { name: name.clone(), digest: resident.digest.clone() });
        }
    }
    steps
}

/// Between attempts: doubles from a quarter of a second to a minute.
#[must_use]
pub fn backoff(attempts: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(250);
    const MOST: Duration = Duration::from_secs(60);
    FIRST.saturating_mul(1 << attempts.min(10)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(source: &str, digest: Option<&str>) -> Version {
        Version { source: source.to_owned(), digest: digest.map(str::to_owned), scale: 1.0 }
    }

    fn resident(source: &str, source_digest: &str, digest: &str) -> Resident {
        let [source, source_digest, digest] = [source, source_digest, digest].map(str::to_owned);
        Resident { source, source_digest, digest, scale: 1.0 }
    }

    fn holding(name: &str, resident: Resident) -> Holdings {
        Holdings { resident: BTreeMap::from([(name.to_owned(), resident)]), ..Holdings::default() }
    }

    fn wanted(name: &str, version: Version) -> BTreeMap<String, Version> {
        BTreeMap::from([(name.to_owned(), version)])
    }

    #[test]
    fn a_digest_counts_for_more_than_where_it_came_from() {
        let there = resident("oci://r/a:1", "sha256:m", "sha256:c");
        let cases = [
            (version("oci://r/a:1", None), true),
            (version("oci://r/a:2", None), false),
            (version("oci://r/a:2", Some("sha256:m")), true),
            (version("pvc://claim/a", Some("sha256:c")), true),
            (version("oci://r/a:1", Some("sha256:x")), false),
            (Version { scale: 2.0, ..version("oci://r/a:1", None) }, false),
        ];
        for (wanted, same) in cases {
            assert_eq!(wanted.is(&there), same, "{wanted:?}");
        }
    }

    #[test]
    fn what_is_missing_is_loaded_and_what_is_left_over_goes() {
        let now = Instant::now();
        let wants = wanted("banking", version("oci://r/banking:2", None));
        let old = holding("banking", resident("oci://r/banking:1", "", "sha256:1"));
        let load = Step::Load { name: "banking".to_owned(), version: wants["banking"].clone() };
        assert_eq!(steps(&wants, &old, now, |_| false), std::slice::from_ref(&load));
        assert_eq!(steps(&wants, &Holdings::default(), now, |_| false), [load]);
        let unload = Step::Unload { name: "banking".to_owned(), digest: "sha256:1".to_owned() };
        assert_eq!(steps(&BTreeMap::new(), &old, now, |_| false), [unload]);
        assert_eq!(steps(&BTreeMap::new(), &old, now, |_| true), []);
    }

    #[test]
    fn nothing_is_asked_for_twice() {
        let now = Instant::now();
        let wants = wanted("banking", version("oci://r/banking:1", None));
        let mut holdings = Holdings { loading: wants.clone(), ..Holdings::default() };
        assert_eq!(steps(&wants, &holdings, now, |_| false), []);
        holdings.tell(BTreeMap::from([("banking".to_owned(), resident("oci://r/banking:1", "", "sha256:1"))]));
        assert!(holdings.loading.is_empty() && holdings.complete(&wants));
        holdings.unloading.insert("banking".to_owned());
        assert_eq!(steps(&BTreeMap::new(), &holdings, now, |_| false), []);
    }

    #[test]
    fn a_refused_version_waits_for_its_time_or_for_another_version() {
        let now = Instant::now();
        let wants = wanted("banking", version("oci://r/banking:1", None));
        let mut holdings = Holdings { loading: wants.clone(), ..Holdings::default() };
        let refused = Refused {
            version: wants["banking"].clone(),
            reason: "Unreachable".to_owned(),
            message: "connection refused".to_owned(),
            attempts: 1,
            again: Some(now + backoff(1)),
        };
        holdings.refuse("banking", refused);
        assert!(holdings.loading.is_empty() && holdings.complete(&wants));
        assert_eq!(steps(&wants, &holdings, now, |_| false), []);
        assert_eq!(steps(&wants, &holdings, now + backoff(1), |_| false).len(), 1);
        let other = wanted("banking", version("oci://r/banking:2", None));
        assert_eq!(steps(&other, &holdings, now, |_| false).len(), 1);
    }

    #[test]
    fn backoff_grows_to_its_limit() {
        assert_eq!([0, 2, 40].map(|n| backoff(n).as_millis()), [250, 1000, 60_000]);
    }
}

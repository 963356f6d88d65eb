//! Versions of an adapter: desired ones, resident ones, and their match.

use std::collections::BTreeMap;

use slm_proto::v1::{AdapterPhase, AdapterState, WorkerState};

/// Desired versions of a worker's adapters, by name.
pub type DesiredAdapters = BTreeMap<String, Version>;

/// A desired version of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Source URI, as `LoadAdapter` takes it.
    pub source: String,
    /// Expected digest, when known: that of the artifact as downloaded, or that of its contents.
    pub digest: Option<String>,
    /// Factor on the adapter's own scaling.
    pub scale: f32,
    /// Whether it stays in its slot.
    pub pinned: bool,
}

/// A version of an adapter that a worker serves to new requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resident {
    /// Source URI.
    pub source: String,
    /// Digest of the artifact as downloaded; empty for files in place.
    pub source_digest: String,
    /// Digest of its contents: its identity.
    pub digest: String,
    /// Factor on the adapter's own scaling.
    pub scale: f32,
    /// Whether it stays in its slot.
    pub pinned: bool,
}

impl Version {
    /// True when `resident` is this version. A known digest decides; without one the source does.
    #[must_use]
    pub fn is(&self, resident: &Resident) -> bool {
        #[allow(clippy::float_cmp)] // The same number, handed through.
        let same_scale = self.scale == resident.scale;
        same_scale
            && self.pinned == resident.pinned
            && match &self.digest {
                Some(digest) => *digest == resident.digest || *digest == resident.source_digest,
                None => self.source == resident.source,
            }
    }
}

impl From<&AdapterState> for Resident {
    fn from(adapter: &AdapterState) -> Self {
        Self {
            source: adapter.source.clone(),
            source_digest: adapter.source_digest.clone(),
            digest: adapter.digest.clone(),
            scale: adapter.scale,
            pinned: adapter.pinned,
        }
    }
}

/// Resident adapters of a worker. A version that only finishes running requests is not resident.
#[must_use]
pub fn resident(state: &WorkerState) -> BTreeMap<String, Resident> {
    let serving = state.adapters.iter().filter(|adapter| adapter.phase() == AdapterPhase::Serving);
    serving.map(|adapter| (adapter.name.clone(), adapter.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_counts_for_more_than_where_it_came_from() {
        let version = |source: &str, digest: Option<&str>| Version {
            source: source.to_owned(),
            digest: digest.map(str::to_owned),
            scale: 1.0,
            pinned: false,
        };
        let [source, source_digest, digest] = ["oci://r/a:1", "sha256:m", "sha256:c"].map(str::to_owned);
        let there = Resident { source, source_digest, digest, scale: 1.0, pinned: false };
        let cases = [
            (version("oci://r/a:1", None), true),
            (version("oci://r/a:2", None), false),
            (version("oci://r/a:2", Some("sha256:m")), true),
            (version("pvc://claim/a", Some("sha256:c")), true),
            (version("oci://r/a:1", Some("sha256:x")), false),
            (Version { scale: 2.0, ..version("oci://r/a:1", None) }, false),
            (Version { pinned: true, ..version("oci://r/a:1", None) }, false),
        ];
        for (wanted, same) in cases {
            assert_eq!(wanted.is(&there), same, "{wanted:?}");
        }
    }

    #[test]
    fn only_serving_versions_are_resident() {
        let adapter = |digest: &str, phase: AdapterPhase| AdapterState {
            name: "banking".to_owned(),
            digest: digest.to_owned(),
            phase: phase.into(),
            scale: 1.0,
            ..Default::default()
        };
        let adapters = vec![adapter("new", AdapterPhase::Serving), adapter("old", AdapterPhase::Retiring)];
        let resident = resident(&WorkerState { adapters, ..Default::default() });
        assert_eq!(resident["banking"].digest, "new");
    }
}

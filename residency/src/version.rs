//! What an adapter has to be, and when what a worker holds is that.

use std::collections::BTreeMap;

use slm_proto::v1::{AdapterPhase, AdapterState, WorkerState};

/// The versions that a worker should hold, by name.
pub type DesiredAdapters = BTreeMap<String, Version>;

/// A version of an adapter, as somebody wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Where it comes from, as `LoadAdapter` takes it.
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

impl Version {
    /// Whether `resident` is this version. A digest counts for more than where something came from.
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

impl From<&AdapterState> for Resident {
    fn from(adapter: &AdapterState) -> Self {
        Self {
            source: adapter.source.clone(),
            source_digest: adapter.source_digest.clone(),
            digest: adapter.digest.clone(),
            scale: adapter.scale,
        }
    }
}

/// What new requests on a worker may name: versions that only finish what runs on them are not resident.
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
        };
        let [source, source_digest, digest] = ["oci://r/a:1", "sha256:m", "sha256:c"].map(str::to_owned);
        let there = Resident { source, source_digest, digest, scale: 1.0 };
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

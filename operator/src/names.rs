//! Names and labels of created objects.

use std::collections::BTreeMap;

use slm_tls::Identity;

/// Label that names the SlmModel of a worker's pod.
pub(crate) const MODEL: &str = "slmswarm.io/model";
/// Field manager of every apply.
pub(crate) const MANAGER: &str = "slm-operator";
/// Type of the readiness gate of worker pods: true when the adapters are loaded.
pub(crate) const ADAPTERS_LOADED: &str = "slmswarm.io/AdaptersLoaded";
/// Port of a worker's gRPC endpoint.
pub(crate) const GRPC_PORT: u16 = 9090;
/// Port of a worker's probes and metrics.
pub(crate) const PROBES_PORT: u16 = 9091;

/// Longest name of a Service.
const NAME_MAX: usize = 63;
const PREFIX: &str = "slm-worker-";

/// Name of all objects of a model: readable, and unique to the model.
#[must_use]
pub(crate) fn worker(model: &str) -> String {
    let name = format!("{PREFIX}{model}");
    if name.len() <= NAME_MAX {
        return name;
    }
    // FNV-1a: stable across Rust versions, unlike the standard library's hash.
    let hash = model
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The schema allows only ASCII names.
    let kept: String = name.chars().take(NAME_MAX - 9).collect();
    format!("{}-{:08x}", kept.trim_end_matches('-'), hash as u32)
}

/// Name of the Secret with the certificate of `identity`.
#[must_use]
pub(crate) fn certificate(identity: Identity) -> String {
    format!("slm-swarm-{identity}-tls")
}

/// Labels of every created object.
#[must_use]
pub(crate) fn swarm_labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), "slm-swarm".to_owned()),
    ])
}

/// Selector of a model's worker pods.
#[must_use]
pub(crate) fn selector(model: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "slm-worker".to_owned()),
        (MODEL.to_owned(), model.to_owned()),
    ])
}

/// Labels of every object of a model.
#[must_use]
pub(crate) fn labels(model: &str) -> BTreeMap<String, String> {
    let mut labels = selector(model);
    labels.extend(swarm_labels());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_stay_apart_and_short_enough() {
        assert_eq!(worker("smollm2"), "slm-worker-smollm2");
        let [a, b] = ["a", "b"].map(|end| worker(&format!("{}{end}", "m".repeat(62))));
        assert!(a.len() <= NAME_MAX && b.len() <= NAME_MAX && a != b, "{a} {b}");
    }
}

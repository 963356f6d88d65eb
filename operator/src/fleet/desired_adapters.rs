//! Desired adapters of each model, updated from LoraAdapter events.

use std::collections::{BTreeMap, HashMap};

use slm_crds::LoraAdapter;
use slm_residency::{Version, placement::place};

use crate::source;

/// A desired adapter of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    /// The version.
    pub(super) version: Version,
    /// Number of workers that have it; unset: all of them.
    replicas: Option<u32>,
}

impl Placed {
    /// Those of `pods` that have the adapter, whose name is `name`.
    pub(super) fn pods<'p>(&self, name: &str, pods: &'p [String]) -> Vec<&'p str> {
        place(name, self.replicas, pods.iter().map(String::as_str))
    }
}

/// Desired adapters of a model, by name.
type ModelAdapters = BTreeMap<String, Placed>;

/// Desired versions by model and adapter name.
#[derive(Debug, Default)]
pub(super) struct DesiredAdapters {
    by_model: HashMap<String, ModelAdapters>,
    models: HashMap<String, String>,
    /// Returned for models without adapters.
    none: ModelAdapters,
}

impl DesiredAdapters {
    /// Desired adapters of `model`.
    pub(super) fn of(&self, model: &str) -> &ModelAdapters {
        self.by_model.get(model).unwrap_or(&self.none)
    }

    /// Applies a change of an adapter. Gives the models whose desired adapters changed.
    pub(super) fn set(&mut self, name: &str, adapter: Option<&LoraAdapter>) -> Vec<String> {
        let next = adapter.and_then(|adapter| {
            let placed = Placed { version: version(adapter)?, replicas: adapter.spec.placement.replicas };
            Some((adapter.spec.model_ref.name.clone(), placed))
        });
        let before = self.models.get(name).cloned();
        let same = match (&before, &next) {
            (Some(model), Some((next_model, placed))) => {
                model == next_model && self.of(model).get(name) == Some(placed)
            }
            (None, None) => true,
            _ => false,
        };
        if same {
            return Vec::new();
        }
        if let Some(model) = &before {
            self.models.remove(name);
            if let Some(adapters) = self.by_model.get_mut(model) {
                adapters.remove(name);
            }
        }
        let mut concerned: Vec<String> = before.into_iter().collect();
        if let Some((model, placed)) = next {
            self.models.insert(name.to_owned(), model.clone());
            self.by_model.entry(model.clone()).or_default().insert(name.to_owned(), placed);
            concerned.push(model);
        }
        concerned.dedup();
        concerned
    }
}

/// Desired version of an adapter that owns its name; `None` while it is being deleted, or if pods cannot reach its
/// source.
///
/// A resolved digest is kept until the source changes: a moving tag must not give two workers two versions.
pub(crate) fn version(adapter: &LoraAdapter) -> Option<Version> {
    let spec = &adapter.spec;
    if adapter.metadata.deletion_timestamp.is_some() || source::unreachable(&spec.source.uri).is_some() {
        return None;
    }
    let resolved = adapter.status.as_ref().and_then(|status| status.resolved.as_ref());
    let resolved = resolved.filter(|resolved| resolved.uri == spec.source.uri).map(|resolved| resolved.digest.clone());
    let digest = spec.source.digest.clone().or(resolved);
    Some(Version { source: spec.source.uri.clone(), digest, scale: spec.factor(), pinned: spec.placement.pin })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn adapter(model: &str, uri: &str, resolved: Option<(&str, &str)>) -> LoraAdapter {
        let status = resolved.map(|(uri, digest)| json!({ "resolved": { "uri": uri, "digest": digest } }));
        serde_json::from_value(json!({
            "apiVersion": "slmswarm.io/v1alpha1", "kind": "LoraAdapter", "metadata": { "name": "banking" },
            "spec": { "modelRef": { "name": model }, "source": { "uri": uri } }, "status": status,
        }))
        .expect("an adapter")
    }

    #[test]
    fn only_models_that_are_concerned_are_named() {
        let mut wanted = DesiredAdapters::default();
        let first = adapter("smol", "oci://r/a:1", None);
        assert_eq!(wanted.set("banking", Some(&first)), ["smol"]);
        assert!(wanted.set("banking", Some(&first)).is_empty());
        assert_eq!(wanted.set("banking", Some(&adapter("other", "oci://r/a:1", None))), ["smol", "other"]);
        assert!(wanted.of("smol").is_empty() && wanted.of("other").contains_key("banking"));
        assert_eq!(wanted.set("banking", None), ["other"]);
    }

    #[test]
    fn a_resolved_source_stays_what_it_was() {
        let digest = |adapter: &LoraAdapter| version(adapter).and_then(|version| version.digest);
        let resolved = adapter("smol", "oci://r/a:1", Some(("oci://r/a:1", "sha256:c")));
        assert_eq!(digest(&resolved).as_deref(), Some("sha256:c"));
        assert_eq!(digest(&adapter("smol", "oci://r/a:2", Some(("oci://r/a:1", "sha256:c")))), None);
        assert_eq!(version(&adapter("smol", "file:a", None)), None);
    }
}

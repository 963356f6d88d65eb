//! Desired state: manifests whose artifacts were found and have a digest.

use std::path::PathBuf;

use serde::Serialize;
use slm_crds::{
    ExternalModelSpec,
    expert::Expert,
    model::{Precision, SpeculativeMethod, Task},
};
use slm_launch::ExecutionProvider;
use slm_residency::{DesiredAdapters, Version};
use slm_router::swarm::Route;

/// Desired state of a swarm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Counts up with every change.
    pub revision: u64,
    /// Base models.
    pub models: Vec<DesiredModel>,
    /// Base models whose artifacts cannot be used now. The version before stays in `models`, if there was one.
    pub unusable_models: Vec<UnusableModel>,
    /// Experts on them.
    pub adapters: Vec<DesiredAdapter>,
    /// Experts whose artifacts cannot be used now. The version before stays in `adapters`, if there was one.
    pub unusable_adapters: Vec<UnusableAdapter>,
    /// Models outside of the swarm.
    pub externals: Vec<DesiredExternal>,
    /// Names with rules behind them.
    pub routes: Vec<Route>,
    /// True while artifacts are fetched for the first time: there will be another desired state.
    pub fetching: bool,
}

/// A base model.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredModel {
    /// Its name.
    pub name: String,
    /// What it is good at.
    pub expert: Expert,
    /// Launch options of its worker.
    pub launch: Launch,
}

/// A base model whose artifact cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub struct UnusableModel {
    /// Its name.
    pub name: String,
    /// What it is good at.
    pub expert: Expert,
    /// Path of its files, of a local source.
    pub path: Option<PathBuf>,
    /// What is wrong with them; empty while they are fetched.
    pub problem: String,
}

/// Launch options of a worker. When they change, a new worker replaces the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The checkpoint.
    pub path: PathBuf,
    /// Its digest.
    pub digest: String,
    /// Execution provider.
    pub execution_provider: ExecutionProvider,
    /// What the worker does.
    pub task: Task,
    /// Precision of the weights in memory.
    pub precision: Precision,
    /// Longest sequence in tokens; unset: the model's own.
    pub context_length: Option<u32>,
    /// Sequences at once.
    pub sequences_max: u32,
    /// Most bytes of keys and values; unset: the worker's default.
    pub kv_cache_bytes: Option<i64>,
    /// True for a prefix cache.
    pub prefix_cache: bool,
    /// Method of speculative decoding.
    pub speculative: SpeculativeMethod,
    /// Threads that compute; unset: all.
    pub threads: Option<u32>,
    /// Adapters that running requests may use at a time.
    pub adapter_slots: u32,
    /// Bytes of adapters in the memory of the host besides.
    pub adapter_host_bytes: i64,
    /// Largest rank of an adapter.
    pub adapter_rank_max: u32,
}

/// An expert.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredAdapter {
    /// Its name.
    pub name: String,
    /// Its base model.
    pub model: String,
    /// What it is good at.
    pub expert: Expert,
    /// Its folder.
    pub path: PathBuf,
    /// `sha256:…` of its files.
    pub digest: String,
    /// Multiplies its own scaling.
    pub scale: f32,
    /// Whether it stays in its slot.
    pub pinned: bool,
}

/// A model outside of the swarm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DesiredExternal {
    /// Its name.
    pub name: String,
    /// Its spec, as in the manifest.
    pub spec: ExternalModelSpec,
}

/// An expert whose artifact cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableAdapter {
    /// Its name.
    pub name: String,
    /// Its base model.
    pub model: String,
    /// What it is good at.
    pub expert: Expert,
    /// Its folder, if its source is one of this machine.
    pub path: Option<PathBuf>,
    /// Reason, for people.
    pub problem: String,
}

impl DesiredAdapter {
    /// The version that a worker has to load.
    pub fn version(&self) -> Version {
        let source = format!("file:{}", self.path.display());
        Version { source, digest: Some(self.digest.clone()), scale: self.scale, pinned: self.pinned }
    }
}

impl Desired {
    /// The adapters that a worker of `model` should have.
    pub fn adapters_on(&self, model: &str) -> DesiredAdapters {
        let adapters = self.adapters.iter().filter(|adapter| adapter.model == model);
        adapters.map(|adapter| (adapter.name.clone(), adapter.version())).collect()
    }

    /// Differences from `before`, as `+Kind name`, `-Kind name` and `~Kind name`.
    pub fn changes(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        compare("SlmModel", &before.models, &self.models, |model| &model.name, &mut changes);
        compare("LoraAdapter", &before.adapters, &self.adapters, |adapter| &adapter.name, &mut changes);
        compare("ExternalModel", &before.externals, &self.externals, |external| &external.name, &mut changes);
        compare("SwarmRoute", &before.routes, &self.routes, |route| &route.name, &mut changes);
        changes
    }
}

fn compare<T: PartialEq>(kind: &str, before: &[T], now: &[T], name: impl Fn(&T) -> &String, changes: &mut Vec<String>) {
    for item in now {
        match before.iter().find(|other| name(other) == name(item)) {
            None => changes.push(format!("+{kind} {}", name(item))),
            Some(other) if other != item => changes.push(format!("~{kind} {}", name(item))),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|item| !now.iter().any(|other| name(other) == name(item)));
    changes.extend(gone.map(|item| format!("-{kind} {}", name(item))));
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::desired;

    #[test]
    fn changes_are_named() {
        let before = desired(1, &[("smol", "m1")], &[("banking", "smol", "b1"), ("travel", "smol", "t1")]);
        let now = desired(2, &[("smol", "m1")], &[("banking", "smol", "b2"), ("kitchen", "smol", "k1")]);
        assert_eq!(now.changes(&before), ["~LoraAdapter banking", "+LoraAdapter kitchen", "-LoraAdapter travel"]);
        assert!(now.changes(&now).is_empty());
    }
}

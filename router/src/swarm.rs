//! Desired state: the snapshot that a router is given, anew whenever it changes.

use serde::{Deserialize, Serialize};
use slm_crds::{SwarmRouteSpec, expert::Expert};

/// A snapshot of a swarm's desired state. Generation 0 is the empty snapshot before the first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swarm {
    /// Counts up with every change.
    pub generation: u64,
    /// Base models and their workers.
    #[serde(default)]
    pub models: Vec<Model>,
    /// Experts on them.
    #[serde(default)]
    pub adapters: Vec<Adapter>,
    /// Models outside of it.
    #[serde(default)]
    pub externals: Vec<External>,
    /// Addresses of the processes that ask models outside, such as `http://127.0.0.1:50053`.
    #[serde(default)]
    pub egress: Vec<String>,
    /// Names with rules behind them.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Number of objects that do not decode, which are no part of it.
    #[serde(default)]
    pub undecodable_objects: usize,
}

/// A base model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What it is good at.
    #[serde(default)]
    pub expert: Expert,
    /// Digest that its workers have to serve; empty when any will do.
    #[serde(default)]
    pub digest: String,
    /// Its workers, such as `http://127.0.0.1:4242`.
    #[serde(default)]
    pub workers: Vec<String>,
    /// The reason why no worker can serve it before its files or its manifest change; empty for none.
    #[serde(default)]
    pub refused: String,
}

/// An expert.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Its name.
    pub name: String,
    /// Its base model.
    pub model: String,
    /// What it is good at.
    #[serde(default)]
    pub expert: Expert,
    /// Digest of the version that should serve; empty when any will do. Readiness waits for it; requests are answered
    /// by the version that is loaded until then.
    #[serde(default)]
    pub digest: String,
    /// Reason why no worker can load it until its files or its manifest change; empty when there is none. Requests are
    /// refused with it at once instead of waiting.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refused: String,
}

/// A model outside. What it takes to ask it, only the egress knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Its name.
    pub name: String,
    /// What it is good at.
    #[serde(default)]
    pub expert: Expert,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Its spec, as in the manifest.
    pub spec: SwarmRouteSpec,
}

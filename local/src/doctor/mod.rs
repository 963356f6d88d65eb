//! Checks of a machine before a swarm is started on it: processor, memory, ONNX Runtime, cache folder, ports.
//!
//! A check looks and reports; it changes nothing but a probe file in the cache folder, which it removes.

mod accelerators;
mod machine;
mod model;
mod runtime;
mod storage;

use std::{net::SocketAddr, path::Path};

use serde::Serialize;

/// The outcome of a check, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Fit for a swarm.
    Ok,
    /// A swarm runs, but slower or not with every default.
    Warn,
    /// No swarm runs until this is mended.
    Fail,
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The thing checked.
    pub name: &'static str,
    /// The outcome.
    pub verdict: Verdict,
    /// The state in which it was found.
    pub found: String,
    /// The way to mend it, or to get what is absent; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    /// Something that a swarm on CPUs does without, and how to get it.
    fn absent(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), remedy: remedy.into() }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, found: found.into(), remedy: remedy.into() }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, found: found.into(), remedy: remedy.into() }
    }
}

/// Checks of the model in a folder or file, as a worker would open it: whether it would run, its memory, and how fast it
/// can be. Nothing is converted or loaded. Blocks on files, and measures the memory for a moment.
#[must_use]
pub fn model_checks(path: &Path) -> Vec<Check> {
    model::checks(path)
}

/// All checks, in the order in which a person reads them: of this machine, the `cache` folder, and the addresses `http`
/// and `grpc` of a swarm's endpoints. Blocks on files and on loading ONNX Runtime.
#[must_use]
pub fn checks(cache: &Path, http: SocketAddr, grpc: SocketAddr) -> Vec<Check> {
    vec![
        machine::processor(),
        machine::instructions(),
        machine::cores(),
        machine::memory(),
        runtime::onnx_runtime(),
        accelerators::cuda(),
        accelerators::openvino(),
        storage::cache(cache),
        storage::quickstart_model(cache),
        storage::port("HTTP port", "--http", http),
        storage::port("gRPC port", "--grpc", grpc),
    ]
}

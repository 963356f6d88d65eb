//! Readiness of the swarm behind a router, with the missing objects. A pure function of the view.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    config::ReadyWhen,
    decide::absent,
    view::{Entry, Expert, View, Worker},
};

/// Readiness of the swarm behind a router, as its `/readyz` gives it. `slm up` reads it.
///
/// A process without a swarm behind it has [`slm_probes::Readiness`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmReadiness {
    /// True when nothing is missing.
    pub ready: bool,
    /// Generation of the swarm that this describes.
    pub generation: u64,
    /// Missing objects in the order of the swarm: models and their workers, adapters, models outside, routes.
    #[serde(default)]
    pub missing: Vec<Missing>,
}

/// An object that is missing or not as the swarm says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// SlmModel, Worker, LoraAdapter, ExternalModel, SwarmRoute, Swarm or Router.
    pub kind: Cow<'static, str>,
    /// Name of the object, or a worker's address.
    pub name: String,
    /// Reason, for people.
    pub why: String,
}

/// The condition under which a router is ready.
#[derive(Clone, Debug)]
pub(crate) struct ReadinessGate {
    pub(crate) when: ReadyWhen,
    /// Cancelled when a shutdown begins.
    pub(crate) withdrawing: CancellationToken,
}

impl ReadinessGate {
    /// True when requests should be sent here.
    pub(crate) fn open(&self, readiness: &SwarmReadiness) -> bool {
        let enough = match self.when {
            ReadyWhen::Complete => readiness.ready,
            ReadyWhen::Known => readiness.generation > 0,
        };
        enough && !self.withdrawing.is_cancelled()
    }
}

pub(crate) fn readiness(view: &View) -> SwarmReadiness {
    let swarm = &view.index.swarm;
    let mut missing = Vec::new();
    let mut push =
        |kind: &'static str, name: &str, why| missing.push(Missing { kind: kind.into(), name: name.to_owned(), why });
    if swarm.generation == 0 {
        push("Swarm", "", "no snapshot has come yet".to_owned());
    }
    for model in &swarm.models {
        if view.workers_of(&model.name).next().is_none() {
            let why = Expert::from(model).refusal().map_or_else(|| "has no worker".to_owned(), |why| why.to_string());
            push("SlmModel", &model.name, why);
        }
        for worker in view.workers_of(&model.name) {
            if let Err(why) = right_model(worker, &model.digest) {
                push("Worker", &worker.url, why);
            }
        }
    }
    for adapter in &swarm.adapters {
        let expert = Expert::from(adapter);
        if let Some(why) = adapter_missing(view, &expert) {
            push("LoraAdapter", &adapter.name, why);
        }
    }
    for external in &swarm.externals {
        // One that is not asked now, for its circuit is open, does not concern the rest.
        if !view.egress.iter().any(|egress| egress.serving().is_ok()) {
            let why = absent(view, &Expert::from(external)).map_or_else(String::new, |why| why.to_string());
            push("ExternalModel", &external.name, why);
        }
    }
    for (route, rule, why) in &view.index.broken_rules {
        push("SwarmRoute", route, format!("rule {rule}: {why}"));
    }
    for route in &swarm.routes {
        let Some(Entry::Route(compiled)) = view.index.names.get(&route.name) else { continue };
        for target in compiled.targets().filter(|target| view.index.expert(&target.name).is_none()) {
            push("SwarmRoute", &route.name, format!("leads to {}, which is not part of the swarm", target.name));
        }
    }
    SwarmReadiness { ready: missing.is_empty(), generation: swarm.generation, missing }
}

fn right_model(worker: &Worker, digest: &str) -> Result<(), String> {
    let state = worker.serving().map_err(|why| why.to_string())?;
    if digest.is_empty() || state.model_digest == digest {
        return Ok(());
    }
    Err(format!("worker {} serves digest {}, not {digest}", worker.url, state.model_digest))
}

fn adapter_missing(view: &View, expert: &Expert) -> Option<String> {
    let mut serving = view.workers_of(&expert.model).filter(|worker| worker.serving().is_ok()).peekable();
    if serving.peek().is_none() {
        return absent(view, expert).map(|why| why.to_string());
    }
    serving.find_map(|worker| match worker.resident(expert) {
        Err(why) => Some(why.to_string()),
        Ok(digest) if expert.digest.is_empty() || digest == expert.digest => None,
        Ok(digest) => Some(format!("worker {} still serves digest {digest}, not {}", worker.url, expert.digest)),
    })
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::WorkerState;

    use super::*;
    use crate::view::fixtures;

    fn missing(a: Option<WorkerState>, b: Option<WorkerState>) -> Vec<String> {
        let view = fixtures::view(vec![fixtures::worker("http://a", a), fixtures::worker("http://b", b)]);
        let readiness = readiness(&view);
        assert_eq!(readiness.ready, readiness.missing.is_empty());
        readiness.missing.into_iter().map(|missing| format!("{}: {}", missing.kind, missing.why)).collect()
    }

    #[test]
    fn says_what_is_missing() {
        let all = || Some(fixtures::state(&["banking", "travel"]));
        let mut old = fixtures::state(&["banking", "travel"]);
        old.adapters[1].digest = "sha256:old".to_owned();
        let cases: [(Option<WorkerState>, Option<WorkerState>, &[&str]); 5] = [
            (all(), all(), &[]),
            (all(), None, &["Worker: worker http://b is not connected: connection refused"]),
            (all(), Some(fixtures::state(&["travel"])), &["LoraAdapter: worker http://b has not loaded banking"]),
            (all(), Some(old), &["LoraAdapter: worker http://b still serves digest sha256:old, not sha256:t"]),
            (
                None,
                None,
                &[
                    "Worker: worker http://a is not connected: connection refused",
                    "Worker: worker http://b is not connected: connection refused",
                    "LoraAdapter: worker http://a is not connected: connection refused",
                    "LoraAdapter: worker http://a is not connected: connection refused",
                ],
            ),
        ];
        for (a, b, expected) in cases {
            assert_eq!(missing(a, b), expected);
        }
    }

    #[test]
    fn nothing_is_ready_before_the_first_snapshot() {
        assert_eq!(readiness(&View::default()).missing[0].kind, "Swarm");
    }
}

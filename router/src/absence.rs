//! Reasons why an expert is not served.

use std::{fmt, sync::Arc};

use slm_crds::route::DataPolicy;
use slm_proto::v1::ExpertKind;
use thiserror::Error;

/// A reason. Displayed with the address of the worker, for logs, probes and decisions.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Absence {
    /// No state of the worker is known.
    #[error("worker {worker} is not connected: {why}")]
    Disconnected { worker: Arc<str>, why: Arc<str> },
    /// The worker serves another model.
    #[error("worker {worker} serves {serves}, not {model}")]
    OtherModel { worker: Arc<str>, serves: String, model: String },
    /// The worker takes no new requests.
    #[error("worker {worker} is draining")]
    Draining { worker: Arc<str> },
    /// The worker has not loaded the adapter.
    #[error("worker {worker} has not loaded {name}")]
    NotLoaded { worker: Arc<str>, name: String },
    /// No worker can load it before it changes.
    #[error("{0}")]
    NotLoadable(NotLoadable),
    /// The model has no worker.
    #[error("model {0} has no worker")]
    NoWorker(String),
    /// The swarm has no such object.
    #[error("{0} is not part of the swarm")]
    NotPart(String),
    /// It is outside of the swarm, and the request may not leave it.
    #[error("{name} is outside of the swarm, and the data policy of the request is {policy}")]
    Policy { name: String, policy: DataPolicy },
    /// Nothing runs that could ask a model outside.
    #[error(
        "{0} is outside of the swarm, and no egress runs that could ask it; in a cluster, enable that of the chart"
    )]
    NoEgress(String),
    /// The egress does not ask the model now: its credentials are missing, or it has failed too often.
    #[error("{0} is not asked now, its egress says why; try again later")]
    NotAsked(String),
    /// This request has failed on every worker.
    #[error("every worker that holds it has failed")]
    Failed,
    /// No snapshot has come yet.
    #[error("the router does not know its swarm yet")]
    NoSwarm,
}

/// A model or an adapter that no worker can load before its files or its manifest change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotLoadable {
    pub(crate) kind: ExpertKind,
    pub(crate) name: String,
    pub(crate) why: String,
}

impl NotLoadable {
    /// Code of the error over HTTP.
    pub(crate) fn code(&self) -> &'static str {
        match self.kind {
            ExpertKind::LoraAdapter => "adapter_not_loadable",
            ExpertKind::SlmModel | ExpertKind::ExternalModel | ExpertKind::Unspecified => "model_not_loadable",
        }
    }
}

impl fmt::Display for NotLoadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ExpertKind::LoraAdapter => "adapter",
            ExpertKind::SlmModel | ExpertKind::ExternalModel | ExpertKind::Unspecified => "model",
        };
        write!(formatter, "{kind} `{}` cannot be loaded: {}", self.name, self.why)
    }
}

impl Absence {
    /// For callers, whom addresses inside the swarm do not concern.
    pub(crate) fn for_callers(&self) -> String {
        match self {
            Self::Disconnected { .. } => "its worker is not connected".to_owned(),
            Self::OtherModel { .. } => "its worker serves another model".to_owned(),
            Self::Draining { .. } => "its worker is draining".to_owned(),
            Self::NotLoaded { .. } => "its workers have not loaded it".to_owned(),
            Self::NotLoadable(_)
            | Self::NoWorker(_)
            | Self::NotPart(_)
            | Self::Policy { .. }
            | Self::NoEgress(_)
            | Self::NotAsked(_)
            | Self::Failed
            | Self::NoSwarm => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_see_no_address() {
        let worker: Arc<str> = "http://10.0.0.7:50051".into();
        let cases = [
            Absence::Disconnected { worker: Arc::clone(&worker), why: "connection to 10.0.0.7:50051 refused".into() },
            Absence::OtherModel { worker: Arc::clone(&worker), serves: "other".to_owned(), model: "smol".to_owned() },
            Absence::Draining { worker: Arc::clone(&worker) },
            Absence::NotLoaded { worker, name: "banking".to_owned() },
        ];
        for absence in cases {
            assert!(absence.to_string().contains("10.0.0.7"), "{absence}");
            assert!(!absence.for_callers().contains("10.0.0.7"), "{}", absence.for_callers());
        }
    }
}

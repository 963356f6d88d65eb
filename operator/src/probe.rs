//! Readiness and metrics of the operator.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use slm_probes::{Readiness, Subject};
use slm_watch::Undecodable;

use crate::metrics::Metrics;

/// Role of this operator.
#[derive(Clone, Debug, Default)]
pub(crate) enum Role {
    /// Waiting for the lease; ready all the same.
    #[default]
    Standby,
    /// Leading.
    Leading {
        /// Time up to which leading was counted.
        counted: Instant,
    },
    /// Its controllers ended, and the process is about to exit.
    Failed {
        /// Reason of the end.
        why: String,
    },
}

/// State behind the probes, shared by the tasks that change it.
#[derive(Default)]
pub(crate) struct OperatorProbe {
    role: Mutex<Role>,
    undecodable: Mutex<Undecodable>,
    /// Metrics of this operator.
    pub(crate) metrics: Metrics,
}

impl OperatorProbe {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sets the role.
    pub(crate) fn act(&self, role: Role) {
        self.count();
        self.metrics.leading(matches!(role, Role::Leading { .. }));
        *self.role.lock().unwrap_or_else(PoisonError::into_inner) = role;
    }

    /// Sets the undecodable objects to report, those of this term.
    pub(crate) fn watch(&self, undecodable: Undecodable) {
        *self.undecodable.lock().unwrap_or_else(PoisonError::into_inner) = undecodable;
    }

    fn count(&self) {
        if let Role::Leading { counted } = &mut *self.role.lock().unwrap_or_else(PoisonError::into_inner) {
            self.metrics.led(counted.elapsed());
            *counted = Instant::now();
        }
    }
}

impl Subject for OperatorProbe {
    fn readiness(&self) -> Readiness {
        match &*self.role.lock().unwrap_or_else(PoisonError::into_inner) {
            Role::Standby | Role::Leading { .. } => Readiness::ready(),
            Role::Failed { why } => Readiness::missing(format!("the controllers ended: {why}")),
        }
    }

    fn metrics(&self) -> String {
        self.count();
        let counts = self.undecodable.lock().unwrap_or_else(PoisonError::into_inner).counts();
        self.metrics.undecodable(counts);
        self.metrics.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whose_work_ended_is_neither_ready_nor_leading() {
        let probe = OperatorProbe::new();
        assert!(probe.readiness().ready);
        probe.act(Role::Leading { counted: Instant::now() });
        assert!(probe.readiness().ready && probe.metrics().contains("slm_operator_leading 1"));
        probe.act(Role::Failed { why: "model controller panicked".to_owned() });
        assert!(!probe.readiness().ready && probe.metrics().contains("slm_operator_leading 0"));
    }
}

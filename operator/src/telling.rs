//! What the operator's probes tell: whether it can do its work, and whether it is the one that does.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use slm_probes::{Readiness, Subject};
use slm_watch::Undecodable;

use crate::metrics::Metrics;

/// What this operator is doing.
#[derive(Clone, Debug, Default)]
pub(crate) enum Role {
    /// It waits for the lease: as ready as the one that has it.
    #[default]
    Standby,
    /// It leads.
    Leading {
        /// Up to when this was counted.
        counted: Instant,
    },
    /// It led, its work ended, and the process is about to.
    Failed {
        /// What happened.
        why: String,
    },
}

/// Shared with whoever changes it.
#[derive(Default)]
pub(crate) struct Telling {
    role: Mutex<Role>,
    undecodable: Mutex<Undecodable>,
    /// What is counted.
    pub(crate) metrics: Metrics,
}

impl Telling {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on it does this.
    pub(crate) fn act(&self, role: Role) {
        self.count();
        self.metrics.leading(matches!(role, Role::Leading { .. }));
        *self.role.lock().unwrap_or_else(PoisonError::into_inner) = role;
    }

    /// The objects of this term that do not decode.
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

impl Subject for Telling {
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
        let telling = Telling::new();
        assert!(telling.readiness().ready);
        telling.act(Role::Leading { counted: Instant::now() });
        assert!(telling.readiness().ready && telling.metrics().contains("slm_operator_leading 1"));
        telling.act(Role::Failed { why: "model controller panicked".to_owned() });
        assert!(!telling.readiness().ready && telling.metrics().contains("slm_operator_leading 0"));
    }
}

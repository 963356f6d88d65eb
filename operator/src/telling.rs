//! What the operator's probes tell: whether it can do its work, and whether it is the one that does.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use slm_probes::{Readiness, Subject};

/// Shared with whoever changes it.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    leading: AtomicBool,
}

impl Telling {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn lead(&self, leading: bool) {
        self.leading.store(leading, Ordering::Relaxed);
    }
}

impl Subject for Telling {
    /// One that waits for the lease is as ready as the one that has it.
    fn readiness(&self) -> Readiness {
        Readiness::ready()
    }

    fn metrics(&self) -> String {
        let leading = u8::from(self.leading.load(Ordering::Relaxed));
        format!(
            "# HELP slm_operator_leading 1 while this operator holds the lease.\n# TYPE slm_operator_leading gauge\n\
             slm_operator_leading {leading}\n# EOF\n"
        )
    }
}

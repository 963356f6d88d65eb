//! What constrained answers may go on with is found beside the step: it depends on the tokens that are known before.
//!
//! A thread of its own does it, while the engine's waits for the backend.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, Sender, channel},
};

use crate::constrain::{ConstraintFailure, Guide, Next};

/// Stack of the thread: parsers descend by recursion. Only what is touched takes memory.
const STACK_BYTES: usize = 64 << 20;

/// One answer's part of a step.
pub(super) struct Look {
    /// Index among the running sequences.
    pub(super) place: usize,
    pub(super) guide: Guide,
    /// Drafted tokens, which the guide admits.
    pub(super) draft: Vec<u32>,
}

/// What was found for it.
pub(super) struct Seen {
    pub(super) place: usize,
    pub(super) guide: Guide,
    pub(super) next: Result<Vec<Next>, ConstraintFailure>,
}

/// The thread. It ends with this handle.
pub(super) struct LookAhead {
    looks: Sender<Vec<Look>>,
    seen: Receiver<Vec<Seen>>,
}

impl LookAhead {
    pub(super) fn start() -> std::io::Result<Self> {
        let (looks, asked) = channel::<Vec<Look>>();
        let (answers, seen) = channel();
        // Of the priority of I/O: it needs a core for moments, and a step waits for it.
        std::thread::Builder::new().name("masks".into()).stack_size(STACK_BYTES).spawn(move || {
            for looks in asked {
                if answers.send(looks.into_iter().map(look).collect()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { looks, seen })
    }

    /// Begins; [`finish`](Self::finish) follows. Whether there is anything to wait for.
    pub(super) fn begin(&self, looks: Vec<Look>) -> bool {
        !looks.is_empty() && self.looks.send(looks).is_ok()
    }

    /// Waits for what was begun. Empty when the thread is gone.
    pub(super) fn finish(&self) -> Vec<Seen> {
        self.seen.recv().unwrap_or_default()
    }
}

fn look(Look { place, mut guide, draft }: Look) -> Seen {
    // llguidance contains panics of its own; this one contains ours, so that one answer fails and not the worker.
    let next = catch_unwind(AssertUnwindSafe(|| guide.look_ahead(&draft)));
    let next = next.unwrap_or(Err(ConstraintFailure::Panicked));
    Seen { place, guide, next }
}

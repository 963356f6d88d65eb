//! The work of a node in [phases](slm_kernels::phases), for one hand-over to the threads of ONNX Runtime: handing work to
//! them and waiting for them costs as much as a small phase itself.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicBool, Ordering},
};

use ort::operator::ComputeContext;
use slm_kernels::phases::Phase;

/// Runs the phases one after the other on so many threads.
pub(super) fn run(context: &ComputeContext, threads: usize, phases: &[Phase<'_>]) -> ort::Result<()> {
    let panicked = AtomicBool::new(false);
    let work = |_thread: usize| {
        let all = || if phases.iter().all(Phase::work) { Ok(()) } else { Err(panic_error()) };
        if caught(all).is_err() {
            panicked.store(true, Ordering::Relaxed);
        }
    };
    if threads == 1 || phases.iter().all(|phase| phase.tasks() <= 1) {
        work(0);
    } else {
        context.par_for(threads, threads, work)?;
    }
    if panicked.into_inner() { Err(panic_error()) } else { Ok(()) }
}

/// Runs what ONNX Runtime calls. A panic must not leave it: unwinding into C ends the process. As an error it ends the step, and
/// with it the answers that were in it, which get nothing of what was computed.
pub(super) fn caught(work: impl FnOnce() -> ort::Result<()>) -> ort::Result<()> {
    or_panicked(work, panic_error)
}

fn or_panicked<E>(work: impl FnOnce() -> Result<(), E>, panicked: impl FnOnce() -> E) -> Result<(), E> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

fn panic_error() -> ort::Error {
    ort::Error::new("an operator panicked; the worker's log says where, please report it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let ends = |work: &dyn Fn() -> Result<(), &'static str>| or_panicked(work, || "it panicked");
        assert_eq!(ends(&|| unreachable!("as a check might")), Err("it panicked"));
        assert_eq!(ends(&|| Err("as it was")), Err("as it was"));
        assert_eq!(ends(&|| Ok(())), Ok(()));
    }
}

//! Priority of compute threads: nice 10, so that I/O threads, which take requests, send tokens and load adapters,
//! preempt them.
//!
//! Compute threads never rest while there is work, and wait for each other by spinning. At equal priority, an I/O
//! thread that needs a core for a few milliseconds would have to share it in time slices. At a lower priority, compute
//! threads yield at once and lose no more than the I/O thread uses.

/// Niceness: a tenth of the default weight.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lowers the priority of this thread and of threads that it starts.
pub(crate) fn lower() {
    #[cfg(target_os = "linux")]
    {
        let thread = rustix::thread::gettid();
        // Linux sets priorities by thread.
        if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
            tracing::debug!(%error, "the priority of compute threads could not be lowered");
        }
    }
}

/// Runs `work` on a thread with lowered priority, and waits for it; the caller's priority stays.
pub(crate) fn with_compute_priority<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let run = || {
        lower();
        work()
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_thread_that_gives_way_do_too_and_its_caller_does_not() {
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = nice();
        let inside = with_compute_priority(|| std::thread::spawn(nice).join().unwrap());
        assert_eq!((inside, nice()), (NICE.max(before), before));
    }
}

//! The priority of compute threads: nice 10, so that I/O threads, which take requests, send tokens and load adapters,
//! preempt them.
//!
//! The engine's threads never rest while there is work, and wait for each other by spinning. A thread that needs a core for
//! some milliseconds would share one with them by halves, in turns of several milliseconds. With a lower priority they
//! leave it at once and lose no more than it needs; where nobody else wants a core, nothing changes.

/// Nicer by so much: a tenth of the weight of others.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lowers the priority of this thread, and of the threads that it starts from here on.
pub(crate) fn lower() {
    #[cfg(target_os = "linux")]
    {
        let thread = rustix::thread::gettid();
        // To Linux a thread is a process here.
        if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
            tracing::debug!(%error, "threads that compute keep the priority of the others");
        }
    }
}

/// Runs `work` on a thread of its own that gives way, and waits for it: the caller's priority stays.
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

//! Priorities of threads. I/O threads, which take requests, send tokens and load adapters, have the default one.
//!
//! Compute threads of an engine never rest while there is work, and wait for each other by spinning. An I/O thread that needs a
//! core for some milliseconds would share it with them by halves, in turns of several milliseconds. At a lower priority
//! they leave the core at once and lose no more than the other thread needs; where no other thread wants a core,
//! nothing changes.

/// Class of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Compute threads: nice 10, a tenth of the weight of an I/O thread.
    Compute,
    /// Work that must not slow decoding: nice 19, an eighth of the weight of a compute thread.
    Background,
}

impl Priority {
    #[cfg(target_os = "linux")]
    fn nice(self) -> i32 {
        match self {
            Self::Compute => 10,
            Self::Background => 19,
        }
    }

    /// Gives this thread the priority, and the threads that it starts from here on.
    #[cfg(target_os = "linux")]
    pub fn enter(self) {
        let thread = rustix::thread::gettid();
        // To Linux a thread is a process here.
        if let Err(error) = rustix::process::setpriority_process(Some(thread), self.nice()) {
            tracing::debug!(%error, priority = ?self, "a thread keeps its priority");
        }
    }

    /// Gives this thread the priority, and the threads that it starts from here on: on Linux only.
    #[cfg(not(target_os = "linux"))]
    pub fn enter(self) {}
}

/// Runs `work` on a thread of that priority, and waits for it: the caller's priority stays.
pub fn with_priority<T: Send>(priority: Priority, work: impl FnOnce() -> T + Send) -> T {
    let run = || {
        priority.enter();
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
    fn threads_inherit_a_priority_and_the_caller_keeps_its_own() {
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).expect("a nice value");
        let before = nice();
        for priority in [Priority::Compute, Priority::Background] {
            let inside = with_priority(priority, || std::thread::spawn(nice).join().expect("a nice value"));
            assert_eq!((inside, nice()), (priority.nice().max(before), before));
        }
    }
}

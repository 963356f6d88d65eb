//! The work of a node, in phases that wait for each other, for one hand-over to the threads.
//!
//! Handing work to ONNX Runtime's threads and waiting for them costs as much as a small phase itself. So all threads get
//! all phases at once: each takes the next task that nobody has, and goes on to the next phase when those that others
//! took are done. A thread only ever waits for tasks that another thread is at, so it does not matter how many threads
//! there really are, or when they come.

use std::{
    hint,
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use ort::operator::ComputeContext;

/// Tasks of which none needs another.
pub(super) struct Phase<'a> {
    tasks: usize,
    run: &'a (dyn Fn(usize) + Send + Sync),
    taken: AtomicUsize,
    done: Count,
}

impl<'a> Phase<'a> {
    /// `run` is called once with each number below `tasks`.
    pub(super) fn new(tasks: usize, run: &'a (dyn Fn(usize) + Send + Sync)) -> Self {
        Self { tasks, run, taken: AtomicUsize::new(0), done: Count::default() }
    }

    /// Takes tasks until there are none, and waits for those of others. `false`: one of them panicked, and what comes after
    /// the phase must not be done.
    fn work(&self) -> bool {
        loop {
            let task = self.taken.fetch_add(1, Ordering::Relaxed);
            if task >= self.tasks {
                break;
            }
            let _done = Done(&self.done);
            (self.run)(task);
        }
        self.done.wait(self.tasks)
    }
}

/// Some tasks of a phase, which others of the same phase wait for. Those that wait must come after those that are waited
/// for: then whoever waits knows that another thread is at them.
pub(super) struct Gate {
    tasks: usize,
    done: Count,
}

impl Gate {
    /// Opens when so many tasks are done.
    pub(super) fn new(tasks: usize) -> Self {
        Self { tasks, done: Count::default() }
    }

    /// Does one of them.
    pub(super) fn task(&self, run: impl FnOnce()) {
        let _done = Done(&self.done);
        run();
    }

    /// What they wrote is seen from here on.
    ///
    /// # Panics
    /// One of them did.
    pub(super) fn wait(&self) {
        assert!(self.done.wait(self.tasks), "what is waited for panicked");
    }
}

/// Tasks that are done.
#[derive(Default)]
struct Count {
    done: AtomicUsize,
    panicked: AtomicBool,
}

impl Count {
    /// Waits for so many. What they wrote is seen from here on; `false`: one of them did not write it all.
    fn wait(&self, tasks: usize) -> bool {
        while self.done.load(Ordering::Acquire) < tasks {
            hint::spin_loop();
        }
        !self.panicked.load(Ordering::Relaxed)
    }
}

/// Counts a task as done, also if it panicked: the other threads would wait for ever.
struct Done<'a>(&'a Count);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.panicked.store(true, Ordering::Relaxed);
        }
        self.0.done.fetch_add(1, Ordering::Release);
    }
}

/// Runs the phases one after the other on so many threads.
pub(super) fn run(context: &ComputeContext, threads: usize, phases: &[Phase<'_>]) -> ort::Result<()> {
    let panicked = AtomicBool::new(false);
    let work = |_thread: usize| {
        let all = || if phases.iter().all(Phase::work) { Ok(()) } else { Err(panic_error()) };
        if caught(all).is_err() {
            panicked.store(true, Ordering::Relaxed);
        }
    };
    if threads == 1 || phases.iter().all(|phase| phase.tasks <= 1) {
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

/// Where task `task` of `tasks` begins in so many items.
pub(super) fn cut(items: usize, task: usize, tasks: usize) -> usize {
    items * task / tasks
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Phases see all that those before them did, whoever comes when.
    #[test]
    fn phases_wait_for_each_other_and_tasks_run_once() {
        for threads in [1, 2, 5] {
            let (first, second) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
            let begin = |_task: usize| {
                first.fetch_add(1, Ordering::Relaxed);
            };
            let then = |task: usize| {
                assert_eq!(first.load(Ordering::Relaxed), 40);
                second.lock().unwrap().push(task);
            };
            let phases = [Phase::new(40, &begin), Phase::new(0, &then), Phase::new(7, &then)];
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| assert!(phases.iter().all(Phase::work)));
                }
            });
            let mut tasks = second.into_inner().unwrap();
            tasks.sort_unstable();
            assert_eq!(tasks, [0, 1, 2, 3, 4, 5, 6]);
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let ends = |work: &dyn Fn() -> Result<(), &'static str>| or_panicked(work, || "it panicked");
        assert_eq!(ends(&|| unreachable!("as a check might")), Err("it panicked"));
        assert_eq!(ends(&|| Err("as it was")), Err("as it was"));
        assert_eq!(ends(&|| Ok(())), Ok(()));
    }

    #[test]
    fn a_task_that_panics_holds_nobody_up_and_nothing_is_built_on_it() {
        let run = |task: usize| assert_ne!(task, 1, "the second task fails");
        let never = |_task: usize| unreachable!("after a phase that is not whole");
        let phases = [Phase::new(3, &run), Phase::new(3, &never)];
        thread::scope(|scope| {
            let failed = scope.spawn(|| phases.iter().all(Phase::work)).join().is_err();
            assert!(failed);
            assert!(!phases.iter().all(Phase::work));
        });
        assert_eq!(phases[0].done.done.load(Ordering::Relaxed), 3);
        assert_eq!(phases[1].taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_gate_does_not_open_onto_what_is_not_there() {
        let gate = Gate::new(2);
        gate.task(|| ());
        thread::scope(|scope| {
            assert!(scope.spawn(|| gate.task(|| unreachable!("it fails"))).join().is_err());
            assert!(scope.spawn(|| gate.wait()).join().is_err());
        });
    }
}

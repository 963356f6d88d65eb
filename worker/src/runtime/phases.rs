//! The work of a node, in phases that wait for each other, for one hand-over to the threads.
//!
//! Handing work to ONNX Runtime's threads and waiting for them costs as much as a small phase itself. So all threads get
//! all phases at once: each takes the next task that nobody has, and goes on to the next phase when those that others
//! took are done. A thread only ever waits for tasks that another thread is at, so it does not matter how many threads
//! there really are, or when they come.

use std::{
    hint,
    sync::atomic::{AtomicUsize, Ordering},
};

use ort::operator::ComputeContext;

/// Tasks of which none needs another.
pub(super) struct Phase<'a> {
    tasks: usize,
    run: &'a (dyn Fn(usize) + Send + Sync),
    taken: AtomicUsize,
    done: AtomicUsize,
}

impl<'a> Phase<'a> {
    /// `run` is called once with each number below `tasks`.
    pub(super) fn new(tasks: usize, run: &'a (dyn Fn(usize) + Send + Sync)) -> Self {
        Self { tasks, run, taken: AtomicUsize::new(0), done: AtomicUsize::new(0) }
    }

    fn work(&self) {
        loop {
            let task = self.taken.fetch_add(1, Ordering::Relaxed);
            if task >= self.tasks {
                break;
            }
            let _done = Done(&self.done);
            (self.run)(task);
        }
        // What the others wrote is seen from here on.
        while self.done.load(Ordering::Acquire) < self.tasks {
            hint::spin_loop();
        }
    }
}

/// Some tasks of a phase, which others of the same phase wait for. Those that wait must come after those that are waited
/// for: then whoever waits knows that another thread is at them.
pub(super) struct Gate {
    tasks: usize,
    done: AtomicUsize,
}

impl Gate {
    /// Opens when so many tasks are done.
    pub(super) fn new(tasks: usize) -> Self {
        Self { tasks, done: AtomicUsize::new(0) }
    }

    /// Does one of them.
    pub(super) fn task(&self, run: impl FnOnce()) {
        let _done = Done(&self.done);
        run();
    }

    /// What they wrote is seen from here on.
    pub(super) fn wait(&self) {
        while self.done.load(Ordering::Acquire) < self.tasks {
            hint::spin_loop();
        }
    }
}

/// Counts a task as done, also if it panicked: the other threads would wait for ever.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Runs the phases one after the other on so many threads.
pub(super) fn run(context: &ComputeContext, threads: usize, phases: &[Phase<'_>]) -> ort::Result<()> {
    let work = |_thread: usize| phases.iter().for_each(Phase::work);
    if threads == 1 || phases.iter().all(|phase| phase.tasks <= 1) {
        work(0);
        return Ok(());
    }
    context.par_for(threads, threads, work)
}

/// Where task `task` of `tasks` begins in so many items.
pub(super) fn cut(items: usize, task: usize, tasks: usize) -> usize {
    items * task / tasks
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, thread};

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
                    scope.spawn(|| phases.iter().for_each(Phase::work));
                }
            });
            let mut tasks = second.into_inner().unwrap();
            tasks.sort_unstable();
            assert_eq!(tasks, [0, 1, 2, 3, 4, 5, 6]);
        }
    }

    #[test]
    fn a_task_that_panics_holds_nobody_up() {
        let run = |task: usize| assert_ne!(task, 1, "the second task fails");
        let phase = Phase::new(3, &run);
        thread::scope(|scope| {
            let failed = scope.spawn(|| phase.work()).join().is_err();
            assert!(failed);
            phase.work();
        });
        assert_eq!(phase.done.load(Ordering::Relaxed), 3);
    }
}

//! Work of several threads in phases that wait for each other.
//!
//! All threads get all phases at once: each takes the next task that nobody has, and goes on to the next phase when those
//! that others took are done. A thread only ever waits for tasks that another thread is at, so it does not matter how many
//! threads there really are, or when they come. Waiting is spinning: phases are microseconds long.
//!
//! `make loom` runs the tests of `interleavings` over every order in which two or three threads can come.

use std::thread;

use self::sync::{AtomicBool, AtomicUsize, Ordering, spin_loop};

/// Atomics as loom replaces them.
mod sync {
    #[cfg(feature = "loom")]
    pub(super) use loom::{
        hint::spin_loop,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    };
    #[cfg(not(feature = "loom"))]
    pub(super) use std::{
        hint::spin_loop,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    };
}

/// Tasks of which none needs another.
pub struct Phase<'a> {
    tasks: usize,
    run: &'a (dyn Fn(usize) + Send + Sync),
    taken: AtomicUsize,
    done: Count,
}

impl<'a> Phase<'a> {
    /// `run` is called once with each number below `tasks`.
    pub fn new(tasks: usize, run: &'a (dyn Fn(usize) + Send + Sync)) -> Self {
        Self { tasks, run, taken: AtomicUsize::new(0), done: Count::default() }
    }

    /// Number of its tasks.
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// Takes tasks until there are none, and waits for those of other threads, whose writes are seen from here on.
    /// `false`: a task panicked, and the next phase must not begin.
    pub fn work(&self) -> bool {
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

/// Some tasks of a phase that other tasks of the same phase wait for. Tasks that wait must have higher numbers than those
/// that they wait for: then another thread is at each of these already.
pub struct Gate {
    tasks: usize,
    done: Count,
}

impl Gate {
    /// Opens when so many tasks are done.
    pub fn new(tasks: usize) -> Self {
        Self { tasks, done: Count::default() }
    }

    /// Does one of them.
    pub fn task(&self, run: impl FnOnce()) {
        let _done = Done(&self.done);
        run();
    }

    /// Waits for all of them. Their writes are seen from here on.
    ///
    /// # Panics
    /// One of them did.
    pub fn wait(&self) {
        assert!(self.done.wait(self.tasks), "a task that this one waits for panicked");
    }
}

/// Tasks of which the last one to end has more to do. It can be used again once the last one has ended.
#[derive(Debug)]
pub(crate) struct Countdown {
    tasks: usize,
    done: AtomicUsize,
}

impl Countdown {
    /// Of so many tasks.
    pub(crate) fn new(tasks: usize) -> Self {
        Self { tasks, done: AtomicUsize::new(0) }
    }

    /// One task has ended. True for the last one, which sees the writes of the others.
    pub(crate) fn is_last(&self) -> bool {
        let last = self.done.fetch_add(1, Ordering::AcqRel) + 1 == self.tasks;
        if last {
            self.done.store(0, Ordering::Relaxed);
        }
        last
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
            spin_loop();
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

/// Where task `task` of `tasks` begins in so many items.
pub fn cut(items: usize, task: usize, tasks: usize) -> usize {
    items * task / tasks
}

#[cfg(all(test, feature = "loom"))]
mod interleavings;
#[cfg(all(test, not(feature = "loom")))]
mod tests;

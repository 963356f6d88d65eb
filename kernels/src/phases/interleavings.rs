//! Every order in which threads can come, as the memory model allows it.
#![allow(unsafe_code)] // Loom's cells give pointers; loom itself checks that no two accesses race.

use std::sync::Arc;

use loom::{cell::UnsafeCell, thread};

use super::*;

/// Memory in which one thread may write while none looks: loom fails a test where two do so at once.
struct Cells(Vec<UnsafeCell<usize>>);

// SAFETY: loom checks each access against those of the other threads.
unsafe impl Sync for Cells {}
// SAFETY: as above.
unsafe impl Send for Cells {}

impl Cells {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self((0..count).map(|_| UnsafeCell::new(0)).collect()))
    }

    fn add(&self, cell: usize, number: usize) {
        // SAFETY: see `Cells`.
        self.0[cell].with_mut(|value| unsafe { *value += number });
    }

    fn get(&self, cell: usize) -> usize {
        // SAFETY: see `Cells`.
        self.0[cell].with(|value| unsafe { *value })
    }
}

/// Phases borrow what they run, and threads of loom own everything: what one run of a model makes is not freed.
fn forever(run: impl Fn(usize) + Send + Sync + 'static) -> &'static (dyn Fn(usize) + Send + Sync) {
    Box::leak(Box::new(run))
}

/// Runs `work` on this thread and on so many others.
fn with(others: usize, work: impl Fn() + Send + Sync + 'static) {
    let work = Arc::new(work);
    let begin = |_| {
        let work = work.clone();
        thread::spawn(move || work())
    };
    let threads: Vec<_> = (0..others).map(begin).collect();
    work();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_phase_sees_what_the_one_before_it_wrote() {
    loom::model(|| {
        let cells = Cells::new(3);
        let (first, second) = (cells.clone(), cells.clone());
        let phases = Arc::new([
            Phase::new(2, forever(move |task| first.add(task, task + 1))),
            Phase::new(1, forever(move |_| second.add(2, second.get(0) + second.get(1)))),
        ]);
        with(1, move || {
            assert!(phases.iter().all(Phase::work));
            assert_eq!(cells.get(2), 3);
        });
    });
}

#[test]
fn a_gate_opens_onto_what_its_tasks_wrote() {
    loom::model(|| {
        let cells = Cells::new(3);
        let (shared, gate) = (cells.clone(), Gate::new(1));
        let phase = Arc::new(Phase::new(
            3,
            forever(move |task| match task {
                0 => gate.task(|| shared.add(0, 5)),
                task => {
                    gate.wait();
                    shared.add(task, shared.get(0));
                }
            }),
        ));
        with(1, move || {
            assert!(phase.work());
            assert_eq!((cells.get(1), cells.get(2)), (5, 5));
        });
    });
}

#[test]
fn the_last_of_a_countdown_sees_what_the_others_wrote() {
    loom::model(|| {
        let (cells, countdown) = (Cells::new(2), Arc::new(Countdown::new(2)));
        let end = move |cells: &Cells, own: usize| {
            cells.add(own, own + 1);
            if countdown.is_last() {
                assert_eq!(cells.get(0) + cells.get(1), 3);
            }
        };
        let (end, other) = (Arc::new(end), cells.clone());
        let of_other = end.clone();
        let thread = thread::spawn(move || of_other(&other, 1));
        end(&cells, 0);
        thread.join().unwrap();
    });
}

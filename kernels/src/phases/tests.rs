use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

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

#[test]
fn the_last_of_a_countdown_is_one_each_time() {
    let countdown = Countdown::new(3);
    for _ in 0..2 {
        assert_eq!([(); 3].map(|()| countdown.is_last()), [false, false, true]);
    }
}

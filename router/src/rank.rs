//! Eligible workers to the best one: a pure function of what they say and of one random number.
//!
//! Workers with a sequence free come before full ones, and among these, workers that have the adapter in a slot before those
//! that would have to bring it there. Inside the best band two are drawn and the less busy one wins: always taking the least
//! busy would send every request of a burst to the same worker, because states are a little old.

use std::sync::Arc;

use crate::{
    absence::Absence,
    decide::Decided,
    eligible::Eligible,
    view::{Expert, Worker},
};

/// A request with its worker.
#[derive(Debug)]
pub(crate) struct Chosen<'v> {
    pub(crate) decided: Decided<'v>,
    pub(crate) worker: &'v Arc<Worker>,
}

/// A request without a worker for now.
#[derive(Debug)]
pub(crate) struct Unserved<'v> {
    pub(crate) decided: Decided<'v>,
    pub(crate) why: Absence,
}

/// Load of a worker; smaller is better, band first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WorkerLoad {
    full: bool,
    /// The adapter is in no slot.
    away: bool,
    tokens_queued: u64,
    requests: u32,
}

impl<'v> Eligible<'v> {
    /// The best worker, or the reason why there is none. `draw` is any random number.
    pub(crate) fn rank(self, draw: u64) -> Result<Chosen<'v>, Box<Unserved<'v>>> {
        match less_busy(&self.workers, Some(&self.decided.expert), draw) {
            Some(worker) => Ok(Chosen { decided: self.decided, worker }),
            None => Err(Box::new(Unserved { decided: self.decided, why: self.why_none.unwrap_or(Absence::Failed) })),
        }
    }
}

/// The less busy of two workers that are drawn from the best band for `expert`, or for several at once.
pub(crate) fn less_busy<'w>(
    workers: &[&'w Arc<Worker>],
    expert: Option<&Expert>,
    draw: u64,
) -> Option<&'w Arc<Worker>> {
    let loads: Vec<WorkerLoad> = workers.iter().map(|worker| load(worker, expert)).collect();
    pick(&loads, draw).and_then(|best| workers.get(best).copied())
}

/// Whether a request would wait there.
pub(crate) fn is_full(worker: &Worker) -> bool {
    load(worker, None).full
}

fn load(worker: &Worker, expert: Option<&Expert>) -> WorkerLoad {
    let Ok(state) = &worker.state else {
        return WorkerLoad { full: true, away: true, tokens_queued: u64::MAX, requests: u32::MAX };
    };
    // This router's own streams are known at once; what others send is known when the worker says it.
    let said = state.sequences_running.saturating_add(state.requests_waiting);
    let requests = said.max(worker.open_streams());
    let full = requests >= state.sequences_max;
    let away = expert.is_some_and(|expert| worker.is_away(expert));
    WorkerLoad { full, away, tokens_queued: state.tokens_queued, requests }
}

/// Power of two choices inside the best band.
fn pick(loads: &[WorkerLoad], draw: u64) -> Option<usize> {
    let band = |load: &WorkerLoad| (load.full, load.away);
    let best = loads.iter().map(band).min()?;
    let band: Vec<usize> = (0..loads.len()).filter(|index| band(&loads[*index]) == best).collect();
    let len = band.len() as u64;
    let first = draw % len;
    // The second is another one, whenever there is another.
    let second = if len > 1 { (first + 1 + (draw >> 32) % (len - 1)) % len } else { first };
    let [first, second] = [first, second].map(|place| band[usize::try_from(place).unwrap_or(0)]);
    Some(if loads[second] < loads[first] { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(full: bool, tokens_queued: u64, requests: u32) -> WorkerLoad {
        WorkerLoad { full, away: false, tokens_queued, requests }
    }

    const fn away(tokens_queued: u64) -> WorkerLoad {
        WorkerLoad { away: true, ..at(false, tokens_queued, 0) }
    }

    #[test]
    fn the_less_busy_of_two_in_the_best_band() {
        let cases: [(&[WorkerLoad], &[usize]); 7] = [
            (&[], &[]),
            (&[at(true, 9, 9)], &[0]),
            (&[at(true, 0, 0), at(false, 100, 7)], &[1]),
            (&[at(false, 0, 3), at(false, 0, 1)], &[1]),
            (&[away(0), at(false, 9, 7)], &[1]),
            (&[away(9), at(true, 0, 9), away(0)], &[2]),
            (&[at(false, 50, 1), at(false, 0, 5), at(false, 9, 0), at(true, 0, 0)], &[1, 2]),
        ];
        for (loads, expected) in cases {
            let mut picked: Vec<usize> =
                (0..64_u64).filter_map(|n| pick(loads, n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
            picked.sort_unstable();
            picked.dedup();
            assert_eq!(picked, expected, "{loads:?}");
        }
    }

    #[test]
    fn streams_just_opened_count_before_the_worker_says_so() {
        use crate::view::fixtures;
        let worker = fixtures::worker("http://a", Some(fixtures::state(&[])));
        assert!(!is_full(&worker));
        worker.open.store(8, std::sync::atomic::Ordering::Relaxed);
        assert!(is_full(&worker));
    }
}

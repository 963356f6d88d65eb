//! Permits of requests: one from the moment a request is taken until its answer was read or given up.
//!
//! A request is queued, then runs, and is unread from the time its last token was chosen until its reader has it all. Queued and
//! running requests are bounded together (`active_max`), and so are all three (`open_max`): a reader that stops cannot make
//! a worker hold answers without end.
//!
//! Tenants share the permits by longest-queue drop. One alone may have all of them. When none is free, a tenant that
//! would still have no more than the largest takes one from it: its newest queued request of the highest priority
//! number, or, where unread answers are what fills the worker, its oldest unread answer. So with `n` tenants that want
//! in, each has at least an `n`th of the queue, but for what already runs. A request that loses its permit is refused
//! with the same error as one that found none.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// Bounds of one worker.
#[derive(Debug, Clone, Copy)]
pub struct PermitLimits {
    /// Requests that are queued or run.
    pub active_max: usize,
    /// Those, and answers that are complete but not read.
    pub open_max: usize,
}

/// There is no permit for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// Queued and running requests have all permits.
    #[error("{running} requests run and {queued} wait, which is all this worker takes; retry later")]
    Full {
        /// Requests that run.
        running: usize,
        /// Requests in the queue.
        queued: usize,
    },
    /// Answers that are not read have all permits.
    #[error("{unread} answers are complete and not read, which is all this worker keeps; read or cancel them")]
    Unread {
        /// Answers that are complete.
        unread: usize,
    },
}

/// Requests by what they do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wait to run.
    pub queued: usize,
    /// Have pages of the cache.
    pub running: usize,
    /// Are complete, and not read to the end.
    pub unread: usize,
}

impl Counts {
    fn active(self) -> usize {
        self.queued + self.running
    }

    /// All of them.
    pub fn open(self) -> usize {
        self.active() + self.unread
    }

    fn of(&mut self, phase: Phase) -> &mut usize {
        match phase {
            Phase::Queued => &mut self.queued,
            Phase::Running => &mut self.running,
            Phase::Unread => &mut self.unread,
        }
    }
}

/// All permits of a worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Permits {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: PermitLimits,
    state: Mutex<State>,
    /// An unread answer lost its permit.
    withdrawn: Notify,
    /// The last permit was given back.
    none_open: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    all: Counts,
    tenants: HashMap<Arc<str>, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    counts: Counts,
    /// By number, so in the order in which they came.
    requests: BTreeMap<u64, Request>,
}

#[derive(Debug)]
struct Request {
    phase: Phase,
    priority: i32,
    withdrawn: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Queued,
    Running,
    Unread,
}

/// One request's permit. It is given back when this is dropped.
#[derive(Debug)]
pub struct Permit {
    number: u64,
    tenant: Arc<str>,
    withdrawn: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Permits {
    /// All free.
    pub fn new(limits: PermitLimits) -> Self {
        let (state, withdrawn, none_open) = (Mutex::default(), Notify::new(), Notify::new());
        Self { shared: Arc::new(Shared { limits, state, withdrawn, none_open }) }
    }

    /// A permit for a request of `tenant`, which is queued from now on.
    pub fn enter(&self, tenant: &Arc<str>, priority: i32) -> Result<Arc<Permit>, PermitError> {
        let shared = &self.shared;
        let mut state = shared.lock();
        let all = state.all;
        if all.active() >= shared.limits.active_max {
            if !state.withdraw(tenant, Phase::Queued) {
                return Err(PermitError::Full { running: all.running, queued: all.queued });
            }
        } else if all.open() >= shared.limits.open_max {
            if !state.withdraw(tenant, Phase::Unread) {
                return Err(PermitError::Unread { unread: all.unread });
            }
            shared.withdrawn.notify_one();
        }
        let number = state.next;
        state.next += 1;
        let withdrawn = Arc::new(AtomicBool::new(false));
        let request = Request { phase: Phase::Queued, priority, withdrawn: withdrawn.clone() };
        state.insert(tenant, number, request);
        drop(state);
        Ok(Arc::new(Permit { number, tenant: tenant.clone(), withdrawn, shared: shared.clone() }))
    }

    /// Its bounds.
    pub fn limits(&self) -> PermitLimits {
        self.shared.limits
    }

    /// How many there are of each.
    pub fn counts(&self) -> Counts {
        self.shared.lock().all
    }

    /// Waits until an unread answer loses its permit to another tenant.
    pub async fn withdrawn(&self) {
        self.shared.withdrawn.notified().await;
    }

    /// Waits until no request is open.
    pub async fn none_open(&self) {
        loop {
            let notified = self.shared.none_open.notified();
            if self.counts().open() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Permit {
    /// Its tenant.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// Whether it was taken away for another tenant.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// The request runs from now on. `false`: the permit was taken away before.
    pub fn run(&self) -> bool {
        self.shared.lock().change(self, Phase::Running)
    }

    /// Nothing more is generated for it.
    pub fn complete(&self) {
        self.shared.lock().change(self, Phase::Unread);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.remove(&self.tenant, self.number);
        let none_open = state.all.open() == 0;
        drop(state);
        if none_open {
            self.shared.none_open.notify_waiters();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, tenant: &Arc<str>, number: u64, request: Request) {
        let own = self.tenants.entry(tenant.clone()).or_default();
        *own.counts.of(request.phase) += 1;
        *self.all.of(request.phase) += 1;
        own.requests.insert(number, request);
    }

    fn remove(&mut self, tenant: &Arc<str>, number: u64) -> Option<Request> {
        let own = self.tenants.get_mut(tenant)?;
        let request = own.requests.remove(&number)?;
        *own.counts.of(request.phase) -= 1;
        *self.all.of(request.phase) -= 1;
        if own.requests.is_empty() {
            self.tenants.remove(tenant);
        }
        Some(request)
    }

    fn change(&mut self, permit: &Permit, phase: Phase) -> bool {
        let Some(own) = self.tenants.get_mut(&permit.tenant) else { return false };
        let Some(request) = own.requests.get_mut(&permit.number) else { return false };
        for counts in [&mut own.counts, &mut self.all] {
            *counts.of(request.phase) -= 1;
            *counts.of(phase) += 1;
        }
        request.phase = phase;
        true
    }

    /// Takes a permit in `phase` from the largest tenant for `tenant`, if that one still has no more than the other.
    fn withdraw(&mut self, tenant: &Arc<str>, phase: Phase) -> bool {
        let size = |own: &Tenant| if phase == Phase::Queued { own.counts.active() } else { own.counts.open() };
        let has = self.tenants.get(tenant).map_or(0, size);
        let largest =
            self.tenants.iter().filter(|(_, own)| *own.counts.clone().of(phase) > 0).max_by_key(|(_, own)| size(own));
        let Some((largest, own)) = largest.filter(|(_, own)| size(own) >= has + 2) else { return false };
        let mut candidates = own.requests.iter().filter(|(_, request)| request.phase == phase);
        let victim = match phase {
            Phase::Queued => candidates.max_by_key(|(number, request)| (request.priority, **number)),
            Phase::Running | Phase::Unread => candidates.next(),
        };
        let Some((&number, _)) = victim else { return false };
        let largest = largest.clone();
        if let Some(request) = self.remove(&largest, number) {
            request.withdrawn.store(true, Ordering::Relaxed);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(active_max: usize, open_max: usize) -> Permits {
        Permits::new(PermitLimits { active_max, open_max })
    }

    fn tenant(name: &str) -> Arc<str> {
        name.into()
    }

    fn enter(permits: &Permits, name: &str) -> Result<Arc<Permit>, PermitError> {
        permits.enter(&tenant(name), 0)
    }

    fn kept(all: &[Arc<Permit>]) -> usize {
        all.iter().filter(|permit| !permit.is_withdrawn()).count()
    }

    #[test]
    fn a_tenant_alone_may_have_all() {
        let permits = permits(4, 8);
        let all: Vec<_> = (0..4).map(|_| enter(&permits, "").unwrap()).collect();
        let refused = enter(&permits, "").unwrap_err();
        assert_eq!(refused.to_string(), "0 requests run and 4 wait, which is all this worker takes; retry later");
        assert_eq!(kept(&all), 4);
    }

    #[test]
    fn a_flood_leaves_others_their_share_of_the_queue() {
        for (active_max, tenants, share) in [(8, 2, 4), (9, 3, 3), (10, 3, 3), (2, 2, 1), (100, 7, 14)] {
            let permits = permits(active_max, 2 * active_max);
            let flood: Vec<_> = (0..active_max).map(|_| enter(&permits, "flood").unwrap()).collect();
            let mut others: Vec<Vec<_>> = (1..tenants).map(|_| Vec::new()).collect();
            for _ in 0..active_max {
                for (index, own) in others.iter_mut().enumerate() {
                    own.extend(enter(&permits, &format!("tenant-{index}")).ok());
                }
                assert!(enter(&permits, "flood").is_err(), "the flood has its share already");
            }
            for own in &others {
                assert!(kept(own) >= share, "{} of {active_max} among {tenants}", kept(own));
            }
            assert!(kept(&flood) >= share);
            assert_eq!(permits.counts().queued, active_max);
        }
    }

    #[test]
    fn one_permit_does_not_go_back_and_forth() {
        let permits = permits(1, 2);
        let first = enter(&permits, "a").unwrap();
        assert!(enter(&permits, "b").is_err() && !first.is_withdrawn());
        let permits = self::permits(3, 6);
        let all: Vec<_> = ["a", "a", "b"].map(|name| enter(&permits, name).unwrap()).into();
        assert!(enter(&permits, "b").is_err() && enter(&permits, "a").is_err());
        assert_eq!(kept(&all), 3);
    }

    #[test]
    fn what_runs_is_not_taken_and_the_newest_of_the_highest_priority_number_is() {
        let permits = permits(4, 8);
        let all: Vec<_> = [0, 5, 5, 1].map(|priority| permits.enter(&tenant("a"), priority).unwrap()).into();
        assert!(all[2].run());
        let _second = enter(&permits, "b").unwrap();
        assert!(all[1].is_withdrawn(), "the only queued one with priority 5");
        let _third = enter(&permits, "b").unwrap();
        assert!(all[3].is_withdrawn() && !all[0].is_withdrawn());
        assert!(!all[3].run(), "it was taken away before it ran");
        assert_eq!(permits.counts(), Counts { queued: 3, running: 1, unread: 0 });
    }

    #[test]
    fn answers_that_are_not_read_are_bounded_and_their_tenant_pays() {
        let permits = permits(2, 4);
        let unread: Vec<_> = (0..4)
            .map(|_| {
                let permit = enter(&permits, "slow").unwrap();
                assert!(permit.run());
                permit.complete();
                permit
            })
            .collect();
        assert_eq!(enter(&permits, "slow").unwrap_err(), PermitError::Unread { unread: 4 });
        let quick = enter(&permits, "quick").unwrap();
        assert!(unread[0].is_withdrawn() && kept(&unread) == 3, "the oldest one went");
        drop(quick);
        assert_eq!(permits.counts().unread, 3);
        assert!(enter(&permits, "slow").is_ok(), "there is room again");
    }

    #[test]
    fn nothing_stays_of_what_is_gone() {
        let permits = permits(2, 4);
        let all: Vec<_> = (0..2).map(|_| enter(&permits, "a").unwrap()).collect();
        let other = enter(&permits, "b");
        drop((all, other));
        assert_eq!(permits.counts(), Counts::default());
        assert!(permits.shared.lock().tenants.is_empty());
    }

    #[tokio::test]
    async fn waiting_for_none_ends_with_the_last() {
        let permits = permits(2, 4);
        permits.none_open().await;
        let permit = enter(&permits, "a").unwrap();
        let waiting = tokio::spawn({
            let permits = permits.clone();
            async move { permits.none_open().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        permit.complete();
        drop(permit);
        waiting.await.unwrap();
    }
}

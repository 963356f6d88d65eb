//! Queue of waiting requests: by priority, then least-served tenant, then that tenant's least-served expert, then order
//! of arrival.
//!
//! Service is counted in tokens that were computed for prompts and answers, of a tenant divided by its weight (weighted fair
//! queueing). A sequence that claims more of the KV cache than
//! its share, one of as many as may run at once, is charged for that instead: where the cache is what is scarce, long
//! requests of one tenant would keep the short ones of others out, token for token. A tenant or expert that returns after
//! a pause starts level with the least served of the others, without credit for the pause.
//!
//! Priorities cannot starve a request: one place in [`AGED_EVERY`] goes to the longest-waiting request of the
//! least-served tenant, whatever its priority. So the lowest priority gets at least an eighth of the worker.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::{Rc, Weak},
    sync::Arc,
    time::Instant,
};

use super::Submitted;

/// One admission in this many ignores priorities.
pub(super) const AGED_EVERY: usize = 8;

/// Parts of a token in which the service of tenants is counted, so that it can be divided by their weights.
const PARTS: u64 = 1000;

/// Tokens served to a tenant by one expert, shared by the tenant's requests to it.
#[derive(Debug)]
pub(super) struct Account {
    served: Cell<u64>,
    tenant: Rc<TenantAccount>,
}

/// Tokens of all requests of a tenant, divided by its weight.
#[derive(Debug)]
struct TenantAccount {
    /// In parts of a token: [`PARTS`] of a tenant with weight 1.
    served: Cell<u64>,
    weight: Cell<u32>,
    /// Accounts by expert name; the base's name is empty.
    experts: RefCell<HashMap<String, Weak<Account>>>,
}

impl Account {
    pub(super) fn charge(&self, tokens: usize) {
        let parts = tokens as u64 * PARTS / u64::from(self.tenant.weight.get());
        for (served, by) in [(&self.served, tokens as u64), (&self.tenant.served, parts)] {
            served.set(served.get() + by);
        }
    }
}

/// A waiting request and its account.
pub(super) struct Waiting {
    pub(super) submitted: Submitted,
    pub(super) account: Rc<Account>,
}

/// The queue of waiting requests.
#[derive(Default)]
pub(super) struct Queue {
    /// Requests in the order of arrival.
    waiting: VecDeque<Waiting>,
    tenants: HashMap<Arc<str>, Weak<TenantAccount>>,
    /// Number of admitted requests.
    taken: usize,
}

impl Queue {
    pub(super) fn push(&mut self, submitted: Submitted) {
        let expert = submitted.job.adapter.as_ref().map_or("", |lease| &lease.info.name);
        let tenant = self.tenant(submitted.seat.0.tenant());
        tenant.weight.set(submitted.job.weight.max(1));
        let account = tenant.expert(expert);
        self.waiting.push_back(Waiting { submitted, account });
    }

    /// Index of the next request.
    pub(super) fn next(&self) -> Option<usize> {
        let aged = self.taken % AGED_EVERY == AGED_EVERY - 1;
        let order = |waiting: &Waiting| {
            let (tenant, expert) = (waiting.account.tenant.served.get(), waiting.account.served.get());
            if aged { (0, tenant, 0) } else { (waiting.submitted.job.priority, tenant, expert) }
        };
        (0..self.waiting.len()).min_by_key(|&index| order(&self.waiting[index]))
    }

    pub(super) fn get(&self, index: usize) -> Option<&Waiting> {
        self.waiting.get(index)
    }

    /// Removes a request for admission.
    pub(super) fn take(&mut self, index: usize) -> Option<Waiting> {
        let taken = self.waiting.remove(index)?;
        self.taken = self.taken.wrapping_add(1);
        Some(taken)
    }

    /// Drops cancelled requests.
    pub(super) fn let_go(&mut self, now: Instant) {
        self.waiting.retain(|waiting| !waiting.submitted.abandoned(now));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn prompt_tokens(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.submitted.job.prompt.len()).sum()
    }

    fn tenant(&mut self, name: &Arc<str>) -> Rc<TenantAccount> {
        if let Some(account) = self.tenants.get(name).and_then(Weak::upgrade) {
            return account;
        }
        // Removes the accounts of tenants without requests.
        self.tenants.retain(|_, account| account.strong_count() > 0);
        let served = self.tenants.values().filter_map(Weak::upgrade).map(|account| account.served.get());
        let served = Cell::new(served.min().unwrap_or(0));
        let account = Rc::new(TenantAccount { served, weight: Cell::new(1), experts: RefCell::default() });
        self.tenants.insert(name.clone(), Rc::downgrade(&account));
        account
    }
}

impl TenantAccount {
    fn expert(self: Rc<Self>, name: &str) -> Rc<Account> {
        let mut experts = self.experts.borrow_mut();
        if let Some(account) = experts.get(name).and_then(Weak::upgrade) {
            return account;
        }
        experts.retain(|_, account| account.strong_count() > 0);
        let served = experts.values().filter_map(Weak::upgrade).map(|account| account.served.get());
        let served = Cell::new(served.min().unwrap_or(0));
        let account = Rc::new(Account { served, tenant: self.clone() });
        experts.insert(name.to_owned(), Rc::downgrade(&account));
        drop(experts);
        account
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        adapters::{AdapterInfo, AdapterLease, Adapters},
        engine::{Job, Seat},
        permits::{PermitLimits, Permits},
        sample::SamplingParams,
    };

    fn adapters(names: &[&str]) -> Vec<Arc<AdapterLease>> {
        let adapters = Adapters::new(names.len(), 0, 0);
        let publish = |name: &&str| {
            let info = AdapterInfo {
                name: (*name).into(),
                digest: String::new(),
                source: String::new(),
                source_digest: String::new(),
                scale: 1.0,
                pinned: false,
                rank_max: 1,
                target_modules: Vec::new(),
                load_time: std::time::Duration::ZERO,
                loaded_at: std::time::SystemTime::UNIX_EPOCH,
                chat: slm_convert::peft::AdapterChat::default(),
                readout: None,
                head: None,
            };
            adapters.publish(info, slm_convert::pack::PackedAdapter::default()).unwrap()
        };
        names.iter().map(publish).collect()
    }

    /// A request with a prompt of so many tokens, by which tests know it.
    fn request(adapter: &Arc<AdapterLease>, priority: i32, tokens: usize) -> Submitted {
        of_tenant("", adapter, priority, tokens)
    }

    fn of_tenant(tenant: &str, adapter: &Arc<AdapterLease>, priority: i32, tokens: usize) -> Submitted {
        let job = Job {
            prompt: vec![0; tokens],
            adapter: Some(adapter.clone()),
            sampling: SamplingParams::GREEDY,
            guide: None,
            tokens_max: 1,
            stop_ids: Vec::new(),
            priority,
            weight: 1,
            deadline: None,
        };
        let permits = Permits::new(PermitLimits { active_max: 1, open_max: 1 });
        Submitted { job, events: mpsc::channel(1).0, seat: Seat(permits.enter(&tenant.into(), priority).unwrap()) }
    }

    fn next(queue: &mut Queue) -> (usize, Rc<Account>) {
        let waiting = queue.take(queue.next().unwrap()).unwrap();
        (waiting.submitted.job.prompt.len(), waiting.account)
    }

    #[test]
    fn the_expert_that_was_served_least_is_next() {
        let experts = adapters(&["busy", "quiet"]);
        let mut queue = Queue::default();
        for tokens in 1..=4 {
            queue.push(request(&experts[0], 0, tokens));
        }
        let (first, busy) = next(&mut queue);
        busy.charge(100);
        queue.push(request(&experts[1], 0, 10));
        queue.push(request(&experts[1], 0, 11));
        let (second, quiet) = next(&mut queue);
        assert_eq!((first, second), (1, 2), "the quiet one is owed nothing from before it came");
        quiet.charge(50);
        drop(quiet);
        assert_eq!(next(&mut queue).0, 10);
        assert_eq!(next(&mut queue).0, 11);
        assert_eq!(next(&mut queue).0, 3);
    }

    #[test]
    fn tenants_are_served_by_their_weight() {
        let experts = adapters(&["one"]);
        let mut queue = Queue::default();
        for tokens in 1..=40 {
            for (tenant, weight) in [("heavy", 3), ("light", 1)] {
                let mut submitted = of_tenant(tenant, &experts[0], 0, tokens);
                submitted.job.weight = weight;
                queue.push(submitted);
            }
        }
        let mut heavy = 0;
        for _ in 0..40 {
            let waiting = queue.take(queue.next().unwrap()).unwrap();
            waiting.account.charge(10);
            heavy += usize::from(&**waiting.submitted.seat.0.tenant() == "heavy");
        }
        assert!((29..=31).contains(&heavy), "{heavy} of 40");
    }

    #[test]
    fn priority_comes_first_and_then_order() {
        let experts = adapters(&["one", "two"]);
        let mut queue = Queue::default();
        queue.push(request(&experts[0], 0, 1));
        queue.push(request(&experts[1], 0, 2));
        queue.push(request(&experts[0], -7, 3));
        assert_eq!([(); 3].map(|()| next(&mut queue).0), [3, 1, 2]);
    }

    #[test]
    fn a_flood_of_one_tenant_leaves_the_others_their_turns() {
        let experts = adapters(&["one", "two"]);
        let mut queue = Queue::default();
        for tokens in 1..=20 {
            // To two experts: that gives a tenant no second share.
            queue.push(of_tenant("flood", &experts[tokens % 2], 0, tokens));
        }
        let (_, flood) = next(&mut queue);
        for tokens in 101..=103 {
            queue.push(of_tenant("quiet", &experts[0], 0, tokens));
        }
        let mut order = Vec::new();
        let mut accounts = vec![flood];
        for _ in 0..6 {
            let (tokens, account) = next(&mut queue);
            account.charge(100);
            order.push(tokens > 100);
            accounts.push(account);
        }
        assert_eq!(order.iter().filter(|quiet| **quiet).count(), 3, "{order:?}");
    }

    #[test]
    fn no_priority_is_starved() {
        let experts = adapters(&["one"]);
        let mut queue = Queue::default();
        queue.push(request(&experts[0], i32::MAX, 1000));
        queue.push(request(&experts[0], 7, 1001));
        let mut taken = Vec::new();
        for tokens in 1..=3 * AGED_EVERY {
            // There is always one with a better number.
            queue.push(request(&experts[0], -1, tokens));
            taken.push(next(&mut queue).0);
        }
        let at = |tokens| taken.iter().position(|&taken| taken == tokens);
        assert_eq!((at(1000), at(1001)), (Some(AGED_EVERY - 1), Some(2 * AGED_EVERY - 1)), "{taken:?}");
    }

    #[test]
    fn a_flood_with_the_best_priority_does_not_take_the_aged_places_too() {
        let experts = adapters(&["one"]);
        let mut queue = Queue::default();
        for tokens in 1..=100 {
            queue.push(of_tenant("flood", &experts[0], -5, tokens));
        }
        queue.push(of_tenant("quiet", &experts[0], 0, 1000));
        let mut accounts = Vec::new();
        let place = (0..).find(|_| {
            let (tokens, account) = next(&mut queue);
            account.charge(10);
            accounts.push(account);
            tokens == 1000
        });
        assert_eq!(place, Some(AGED_EVERY - 1));
    }

    #[test]
    fn names_of_the_past_are_forgotten() {
        let names: Vec<String> = (0..100).map(|i| format!("expert-{i}")).collect();
        let experts = adapters(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut queue = Queue::default();
        for expert in &experts {
            queue.push(request(expert, 0, 1));
            next(&mut queue);
        }
        assert_eq!(queue.tenants.values().filter_map(Weak::upgrade).count(), 0);
        queue.push(request(&experts[0], 0, 1));
        assert_eq!(queue.tenants.len(), 1);
        assert_eq!(queue.tenants[""].upgrade().unwrap().experts.borrow().len(), 1);
    }
}

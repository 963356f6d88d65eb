//! Who is let in next: by priority number, then the expert that was served least, then whoever came first.
//!
//! Experts are served by tokens, prompt and answer alike. One that comes back after a pause begins with what the least
//! served of the others has: it is owed nothing for the time in which it asked nothing.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    rc::{Rc, Weak},
    time::Instant,
};

use super::Submitted;

/// Tokens that an expert was served, held by each of its requests.
#[derive(Debug)]
pub(super) struct Account {
    served: Cell<u64>,
}

impl Account {
    pub(super) fn charge(&self, tokens: usize) {
        self.served.set(self.served.get() + tokens as u64);
    }
}

/// A request that waits, and on whose account.
pub(super) struct Waiting {
    pub(super) submitted: Submitted,
    pub(super) account: Rc<Account>,
}

/// Requests that wait.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    /// By the expert's name; the base's is empty.
    accounts: HashMap<String, Weak<Account>>,
}

impl Queue {
    pub(super) fn push(&mut self, submitted: Submitted) {
        let account = self.account(submitted.job.adapter.as_ref().map_or("", |lease| &lease.info.name));
        self.waiting.push_back(Waiting { submitted, account });
    }

    /// Who is next.
    pub(super) fn next(&self) -> Option<usize> {
        let order = |waiting: &Waiting| (waiting.submitted.job.priority, waiting.account.served.get());
        (0..self.waiting.len()).min_by_key(|&index| order(&self.waiting[index]))
    }

    pub(super) fn get(&self, index: usize) -> Option<&Waiting> {
        self.waiting.get(index)
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Waiting> {
        self.waiting.remove(index)
    }

    /// Drops those whose callers left.
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

    fn account(&mut self, expert: &str) -> Rc<Account> {
        if let Some(account) = self.accounts.get(expert).and_then(Weak::upgrade) {
            return account;
        }
        // Experts come and go without end, their names should not stay.
        self.accounts.retain(|_, account| account.strong_count() > 0);
        let served = self.accounts.values().filter_map(Weak::upgrade).map(|account| account.served.get());
        let account = Rc::new(Account { served: Cell::new(served.min().unwrap_or(0)) });
        self.accounts.insert(expert.to_owned(), Rc::downgrade(&account));
        account
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::{
        adapters::{AdapterInfo, AdapterLease, Adapters},
        engine::Job,
        sample::SamplingParams,
    };

    fn adapters(names: &[&str]) -> Vec<Arc<AdapterLease>> {
        let adapters = Adapters::new(names.len(), 0);
        let publish = |name: &&str| {
            let info = AdapterInfo {
                name: (*name).into(),
                digest: String::new(),
                source: String::new(),
                source_digest: String::new(),
                scale: 1.0,
                rank_max: 1,
                target_modules: Vec::new(),
                load_time: std::time::Duration::ZERO,
                loaded_at: std::time::SystemTime::UNIX_EPOCH,
                chat: slm_convert::peft::AdapterChat::default(),
            };
            adapters.publish(info, slm_convert::pack::PackedAdapter::default()).unwrap()
        };
        names.iter().map(publish).collect()
    }

    /// A request with a prompt of so many tokens, by which tests know it.
    fn request(adapter: &Arc<AdapterLease>, priority: i32, tokens: usize) -> Submitted {
        let job = Job {
            prompt: vec![0; tokens],
            adapter: Some(adapter.clone()),
            sampling: SamplingParams::GREEDY,
            tokens_max: 1,
            stop_ids: Vec::new(),
            priority,
            deadline: None,
        };
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Submitted { job, events: mpsc::channel(1).0, _permit: permit }
    }

    fn next(queue: &mut Queue) -> (usize, Rc<Account>) {
        let waiting = queue.remove(queue.next().unwrap()).unwrap();
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
    fn priority_comes_first_and_then_order() {
        let experts = adapters(&["one", "two"]);
        let mut queue = Queue::default();
        queue.push(request(&experts[0], 0, 1));
        queue.push(request(&experts[1], 0, 2));
        queue.push(request(&experts[0], -7, 3));
        assert_eq!([(); 3].map(|()| next(&mut queue).0), [3, 1, 2]);
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
        assert_eq!(queue.accounts.len(), 1);
    }
}

//! A bounded number of threads, whose work is chosen round-robin among tenants.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::Priority;

/// The work failed.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No thread could be started.
    #[error("starting a thread for the request: {0}")]
    Thread(#[from] std::io::Error),
    /// The work panicked.
    #[error("the work on the request panicked; the log says where")]
    Panicked,
}

/// A bounded number of threads, shared by tenants in turn.
#[derive(Debug, Clone)]
pub struct FairPool {
    name: &'static str,
    priority: Priority,
    turns: Arc<Turns>,
}

impl FairPool {
    /// A pool of at most `threads` threads, each of that name and priority.
    #[must_use]
    pub fn new(name: &'static str, priority: Priority, threads: usize) -> Self {
        Self { name, priority, turns: Turns::new(threads.max(1)) }
    }

    /// Runs `work` on the tenant's turn. Dropping the future gives up the turn; work that has begun completes
    /// unobserved.
    ///
    /// # Errors
    /// No thread could be started, or the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        tenant: &Arc<str>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let turn = self.turns.next(tenant).await;
        let (done, result) = oneshot::channel();
        let priority = self.priority;
        std::thread::Builder::new().name(self.name.into()).spawn(move || {
            priority.enter();
            let _turn = turn;
            // Fails if the request was cancelled.
            let _ = done.send(work());
        })?;
        result.await.map_err(|_| PoolError::Panicked)
    }
}

/// Fair semaphore: permits go to tenants in turn, and to a tenant's requests in order of arrival.
#[derive(Debug)]
struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Waiting tenants, next one first, with their requests.
    waiting: VecDeque<(Arc<str>, VecDeque<oneshot::Sender<Turn>>)>,
}

/// A permit. Dropping it passes it on.
#[derive(Debug)]
struct Turn {
    /// `None` once it was passed on.
    turns: Option<Arc<Turns>>,
}

impl Turns {
    fn new(free: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { free, waiting: VecDeque::new() }) })
    }

    async fn next(self: &Arc<Self>, tenant: &Arc<str>) -> Turn {
        loop {
            let waiting = {
                let mut state = self.lock();
                if state.free > 0 {
                    state.free -= 1;
                    return Turn { turns: Some(self.clone()) };
                }
                let (sender, receiver) = oneshot::channel();
                match state.waiting.iter_mut().find(|(other, _)| other == tenant) {
                    Some((_, requests)) => requests.push_back(sender),
                    None => state.waiting.push_back((tenant.clone(), [sender].into())),
                }
                receiver
            };
            // The sender is never dropped unused.
            if let Ok(turn) = waiting.await {
                return turn;
            }
        }
    }

    /// Passes a permit to the next request that still waits.
    fn hand_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                let Some((tenant, mut requests)) = state.waiting.pop_front() else {
                    state.free += 1;
                    return;
                };
                let next = requests.pop_front();
                if !requests.is_empty() {
                    state.waiting.push_back((tenant, requests));
                }
                next
            };
            let Some(next) = next else { continue };
            match next.send(Turn { turns: Some(self.clone()) }) {
                Ok(()) => return,
                // Cancelled. The returned permit must not pass itself on again.
                Err(mut turn) => turn.turns = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.hand_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::BoxFuture};

    use super::*;

    fn asked(turns: &Arc<Turns>, tenant: &str) -> BoxFuture<'static, Turn> {
        let (turns, tenant): (_, Arc<str>) = (turns.clone(), tenant.into());
        let mut future = async move { turns.next(&tenant).await }.boxed();
        assert!((&mut future).now_or_never().is_none(), "it has to wait");
        future
    }

    #[tokio::test]
    async fn tenants_take_turns_and_requests_of_one_keep_their_order() {
        let turns = Turns::new(1);
        let mut held = Some(turns.next(&"flood".into()).await);
        let names = ["flood", "flood", "flood", "quiet", "other", "quiet"];
        let mut waiting: Vec<_> = names.iter().map(|name| Some(asked(&turns, name))).collect();
        let mut order = Vec::new();
        while order.len() < names.len() {
            drop(held.take());
            let ready = waiting.iter_mut().enumerate().find_map(|(index, slot)| {
                let turn = slot.as_mut()?.now_or_never()?;
                *slot = None;
                Some((index, turn))
            });
            let (index, turn) = ready.expect("somebody's turn");
            held = Some(turn);
            order.push(index);
        }
        assert_eq!(order, [0, 3, 4, 1, 5, 2]);
        drop(held);
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test]
    async fn who_is_cancelled_takes_no_turn() {
        let turns = Turns::new(1);
        let held = turns.next(&"a".into()).await;
        let (first, mut second, third) = (asked(&turns, "a"), asked(&turns, "b"), asked(&turns, "c"));
        drop(first);
        drop(held);
        let turn = (&mut second).now_or_never().expect("its turn");
        // Given to the third, which leaves before looking.
        drop(turn);
        drop(third);
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_thread_back() {
        let pool = FairPool::new("test", Priority::Compute, 1);
        let tenant: Arc<str> = "".into();
        #[allow(clippy::panic)]
        let failed = pool.run(&tenant, || -> usize { panic!("as a tokenizer might") }).await;
        assert!(matches!(failed, Err(PoolError::Panicked)));
        assert_eq!(pool.run(&tenant, || 7).await.expect("it runs on"), 7);
    }
}

//! Supervision of tasks that must run together: when one ends, all are stopped, and the reason is reported.
//!
//! A task that ends unnoticed would leave an operator that holds the lease and does nothing. So every long-lived task
//! is spawned by a [`Crew`], and [`term`] ends with the crew as well as with the lease.

use std::{any::Any, collections::HashMap, time::Duration};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longest time for stopped tasks to end. The lease lasts longer, so that nothing is written without it.
const GRACE: Duration = Duration::from_secs(2);

/// A task that ended although it should run as long as the operator leads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It returned.
    #[error("{task} ended")]
    Returned {
        /// Task name.
        task: &'static str,
    },
    /// It failed, with a reason.
    #[error("{task} ended: {why}")]
    Failed {
        /// Task name.
        task: &'static str,
        /// Reason of the failure.
        why: String,
    },
    /// It panicked.
    #[error("{task} panicked: {message}")]
    Panicked {
        /// Task name.
        task: &'static str,
        /// The panic's message.
        message: String,
    },
}

/// Tasks that must all run until `stop`.
pub(crate) struct Crew {
    tasks: JoinSet<Option<String>>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

impl Crew {
    /// A crew without tasks.
    #[must_use]
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), stop }
    }

    /// Starts a task.
    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_watcher(name, async move {
            task.await;
            None
        });
    }

    /// Starts a task that returns a reason when it fails.
    pub(crate) fn spawn_watcher(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Option<String>> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Runs until `stop`, or until a task ends; then stops the others.
    ///
    /// # Errors
    /// The task that ended first, unless that was after `stop`.
    pub(crate) async fn run(mut self) -> Result<(), Ended> {
        let first = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            Some(ended) = self.tasks.join_next_with_id() => Some(self.ended(ended)),
        };
        self.stop.cancel();
        let rest = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                if let Ended::Panicked { task, message } = self.ended(ended) {
                    tracing::error!(task, message, "a task panicked while it was stopped");
                }
            }
        };
        if timeout(GRACE, rest).await.is_err() {
            tracing::warn!("tasks are aborted: they did not stop in time");
            self.tasks.shutdown().await;
        }
        first.map_or(Ok(()), Err)
    }

    fn ended(&self, ended: Result<(Id, Option<String>), JoinError>) -> Ended {
        let name = |id: &Id| self.names.get(id).copied().unwrap_or("a task");
        match ended {
            Ok((id, None)) => Ended::Returned { task: name(&id) },
            Ok((id, Some(why))) => Ended::Failed { task: name(&id), why },
            Err(error) => of_join(name(&error.id()), error),
        }
    }
}

/// End of a term of leadership.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TermEnd {
    /// Shutdown was requested.
    Shutdown,
    /// The lease was lost.
    LeaseLost,
    /// The controllers ended: this process cannot lead.
    Work(Ended),
}

/// Runs `work` while the lease is held. `work` ends when its token is cancelled, and has ended when this returns.
pub(crate) async fn term<W>(
    held: impl Future<Output = ()>,
    work: impl FnOnce(CancellationToken) -> W,
    shutdown: &CancellationToken,
) -> TermEnd
where
    W: Future<Output = Result<(), Ended>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let mut work = tokio::spawn(work(stop.clone()));
    let end = tokio::select! {
        ended = &mut work => {
            return TermEnd::Work(match ended {
                Ok(Ok(())) => Ended::Returned { task: "the controllers" },
                Ok(Err(ended)) => ended,
                Err(error) => of_join("the controllers", error),
            });
        }
        () = held => TermEnd::LeaseLost,
        () = shutdown.cancelled() => TermEnd::Shutdown,
    };
    stop.cancel();
    match timeout(GRACE * 2, &mut work).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(ended))) => tracing::error!(%ended, "a task ended while the others were stopped"),
        Ok(Err(error)) => tracing::error!(%error, "the controllers failed while they were stopped"),
        Err(_) => {
            tracing::error!("the controllers are aborted: they did not stop in time");
            work.abort();
            // An aborted task ends at its next await.
            let _ = timeout(GRACE, work).await;
        }
    }
    end
}

fn of_join(task: &'static str, error: JoinError) -> Ended {
    match error.try_into_panic() {
        Ok(panic) => Ended::Panicked { task, message: message(panic.as_ref()) },
        Err(_) => Ended::Failed { task, why: "it was aborted".to_owned() },
    }
}

/// Message of a panic.
#[must_use]
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn crew(stop: &CancellationToken) -> Crew {
        let mut crew = Crew::new(stop.clone());
        crew.spawn("steady", stop.clone().cancelled_owned());
        crew
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_ends_the_term() {
        let held = pending();
        let work = |stop: CancellationToken| async move {
            let mut crew = crew(&stop);
            crew.spawn("model controller", async {
                sleep(Duration::from_secs(5)).await;
                panic!("not yet implemented");
            });
            crew.run().await
        };
        let end = term(held, work, &CancellationToken::new()).await;
        let message = "not yet implemented".to_owned();
        assert_eq!(end, TermEnd::Work(Ended::Panicked { task: "model controller", message }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_returns_ends_the_term() {
        let work = |stop: CancellationToken| async move {
            let mut crew = crew(&stop);
            crew.spawn_watcher("watches", async { Some("a watch ended".to_owned()) });
            crew.run().await
        };
        let end = term(pending(), work, &CancellationToken::new()).await;
        assert_eq!(end, TermEnd::Work(Ended::Failed { task: "watches", why: "a watch ended".to_owned() }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_whole_work_ends_the_term() {
        let work = |_| async { panic!("outside of any task") };
        let end = term(pending(), work, &CancellationToken::new()).await;
        assert!(matches!(end, TermEnd::Work(Ended::Panicked { task: "the controllers", .. })), "{end:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_with_the_lease_and_with_the_process() {
        let work = |stop: CancellationToken| async move { crew(&stop).run().await };
        let lost = term(sleep(Duration::from_secs(3)), work, &CancellationToken::new()).await;
        assert_eq!(lost, TermEnd::LeaseLost);
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert_eq!(term(pending(), work, &shutdown).await, TermEnd::Shutdown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_aborted() {
        let began = Instant::now();
        let work = |stop: CancellationToken| async move {
            let mut crew = Crew::new(stop);
            crew.spawn("deaf", pending());
            crew.run().await
        };
        let end = term(sleep(Duration::from_secs(1)), work, &CancellationToken::new()).await;
        assert_eq!(end, TermEnd::LeaseLost);
        assert!(began.elapsed() < Duration::from_secs(1) + GRACE * 2, "{:?}", began.elapsed());
    }
}

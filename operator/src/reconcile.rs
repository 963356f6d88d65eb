//! Wrapper of every reconciliation: contains panics, counts outcomes, and retries with backoff.
//!
//! A panic in a reconciler would unwind through kube's controller and stop all other reconciliations. Here it becomes
//! an error of its object, whose condition reports it, and every other object goes on.

use std::{
    collections::HashMap,
    fmt::Debug,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, stream};
use kube::{
    Resource, ResourceExt as _,
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::{ObjectRef, Store},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    conditions::Verdict,
    context::{Context, Error},
    metrics::Outcome,
    supervise::message,
};

/// First and longest pause of the backoff.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// A kind with a controller.
pub(crate) trait Reconciled:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Brings actual state closer to desired state.
    fn reconcile(self: Arc<Self>, context: Arc<Context>) -> impl Future<Output = Result<Action, Error>> + Send;

    /// Reports a refusal in the object's status.
    fn refuse(&self, context: &Context, verdict: &Verdict) -> impl Future<Output = Result<Action, Error>> + Send;
}

/// Controller of a kind, over the kind's shared watch. `concerned` adds reconcile requests for objects affected by
/// others.
pub(crate) fn controller<K: Reconciled>(store: Store<K>, concerned: mpsc::Receiver<ObjectRef<K>>) -> Controller<K> {
    Controller::for_shared_stream(stream::pending(), store).reconcile_on(ReceiverStream::new(concerned))
}

/// Runs a controller until its `graceful_shutdown_on`.
pub(crate) async fn run<K: Reconciled>(controller: Controller<K>, context: Arc<Context>) {
    controller.run(guarded, again, context).for_each(ended).await;
}

/// Runs a reconciliation; a panic becomes an error.
async fn guarded<K: Reconciled>(object: Arc<K>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let outcome = contained(Arc::clone(&object).reconcile(Arc::clone(&context))).await;
    if let Err(Error::Panicked(what)) = &outcome {
        let why = format!("internal error of the operator on this object: {what}; please report it");
        tracing::error!(kind = %K::kind(&()), name = object.name_any(), what, "a reconciliation panicked");
        if let Err(error) = contained(object.refuse(&context, &Verdict::wrong("OperatorFailed", why))).await {
            tracing::warn!(kind = %K::kind(&()), name = object.name_any(), %error, "the status was not written");
        }
    }
    let told = match &outcome {
        Ok(_) => Outcome::Ok,
        Err(Error::Panicked(_)) => Outcome::Panic,
        Err(_) => Outcome::Error,
    };
    context.probe.metrics.reconciled(&K::kind(&()), told, began.elapsed());
    if outcome.is_ok() {
        context.failures.forget(&failing(object.as_ref()));
    }
    outcome
}

/// The outcome of `body`; a panic becomes an error.
async fn contained<T>(body: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let outcome = AssertUnwindSafe(body).catch_unwind().await;
    outcome.unwrap_or_else(|panic| Err(Error::Panicked(message(panic.as_ref()))))
}

/// Consecutive errors by object.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<Failing, u32>>);

/// Kind, name and uid of an object.
type Failing = (String, String, Option<String>);

fn failing<K: Resource<DynamicType = ()>>(object: &K) -> Failing {
    (K::kind(&()).into_owned(), object.name_any(), object.uid())
}

impl Failures {
    /// Counts another error and gives the pause after it.
    fn pause(&self, object: Failing) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object).or_default();
        let [first, most] = PAUSES;
        let pause = slm_backoff::pause(*count, first, most);
        *count = count.saturating_add(1);
        pause
    }

    fn forget(&self, object: &Failing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

/// Error policy: retry with backoff.
fn again<K: Reconciled>(object: Arc<K>, error: &Error, context: Arc<Context>) -> Action {
    let pause = context.failures.pause(failing(object.as_ref()));
    tracing::warn!(kind = %K::kind(&()), name = object.name_any(), %error, again_s = pause.as_secs(), "reconciliation failed; retrying");
    Action::requeue(pause)
}

/// Logs the end of a reconciliation. Its error was logged by the error policy.
async fn ended<K, E, Q>(outcome: Result<(ObjectRef<K>, Action), controller::Error<E, Q>>)
where
    K: Resource<DynamicType = ()>,
    E: std::error::Error + 'static,
    Q: std::error::Error + 'static,
{
    match outcome {
        Ok((object, _)) => tracing::debug!(%object, "reconciled"),
        Err(controller::Error::QueueError(error)) => tracing::warn!(%error, "watch broke"),
        Err(error) => tracing::debug!(%error, "reconciliation ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_object() {
        let outcome: Result<Action, Error> = contained(async { panic!("not yet {}", "implemented") }).await;
        assert!(matches!(&outcome, Err(Error::Panicked(what)) if what == "not yet implemented"), "{outcome:?}");
        assert!(contained(async { Ok(Action::await_change()) }).await.is_ok());
    }

    #[test]
    fn pauses_grow_for_each_object_alone_and_begin_again() {
        let failures = Failures::default();
        let object = |name: &str| ("SlmModel".to_owned(), name.to_owned(), None);
        let [first, most] = PAUSES;
        for failed in 0..12 {
            let longest = (first * (1 << failed)).min(most);
            let pause = failures.pause(object("a"));
            assert!(pause >= longest / 2 && pause <= longest, "{failed}: {pause:?}");
        }
        assert!(failures.pause(object("b")) <= first);
        failures.forget(&object("a"));
        assert!(failures.pause(object("a")) <= first);
    }
}

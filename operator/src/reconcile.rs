//! What all controllers do around a reconciliation: contain its panics, count it, and try it again ever less often.
//!
//! kube's controller climbs down with a reconciliation that panics, and all others with it. So a panic ends here: it
//! becomes an error of its object, which says so, and every other object goes on.

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

/// The pause after an error doubles from the one to the other.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// A kind that has a controller.
pub(crate) trait Reconciled:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Brings what is closer to what should be.
    fn reconcile(self: Arc<Self>, context: Arc<Context>) -> impl Future<Output = Result<Action, Error>> + Send;

    /// Says of the object that it is refused.
    fn refuse(&self, context: &Context, verdict: &Verdict) -> impl Future<Output = Result<Action, Error>> + Send;
}

/// The controller of a kind, over the one watch of it. It hears of all that concerns its objects by `concerned`.
pub(crate) fn controller<K: Reconciled>(store: Store<K>, concerned: mpsc::Receiver<ObjectRef<K>>) -> Controller<K> {
    Controller::for_shared_stream(stream::pending(), store).reconcile_on(ReceiverStream::new(concerned))
}

/// Runs a controller to its end, which is that of its `graceful_shutdown_on`.
pub(crate) async fn run<K: Reconciled>(controller: Controller<K>, context: Arc<Context>) {
    controller.run(guarded, again, context).for_each(ended).await;
}

/// A reconciliation whose panic is an error.
async fn guarded<K: Reconciled>(object: Arc<K>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let outcome = contained(Arc::clone(&object).reconcile(Arc::clone(&context))).await;
    if let Err(Error::Panicked(what)) = &outcome {
        let why = format!("the operator failed on this object, which is a fault of the operator: {what}");
        tracing::error!(kind = %K::kind(&()), name = object.name_any(), what, "a reconciliation panicked");
        if let Err(error) = contained(object.refuse(&context, &Verdict::wrong("OperatorFailed", why))).await {
            tracing::warn!(kind = %K::kind(&()), name = object.name_any(), %error, "its condition was not written");
        }
    }
    let told = match &outcome {
        Ok(_) => Outcome::Ok,
        Err(Error::Panicked(_)) => Outcome::Panic,
        Err(_) => Outcome::Error,
    };
    context.telling.metrics.reconciled(&K::kind(&()), told, began.elapsed());
    if outcome.is_ok() {
        context.failures.forget(&failing(object.as_ref()));
    }
    outcome
}

/// The body's outcome, and a panic as an error.
async fn contained<T>(body: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let outcome = AssertUnwindSafe(body).catch_unwind().await;
    outcome.unwrap_or_else(|panic| Err(Error::Panicked(message(panic.as_ref()))))
}

/// Errors in a row, by object.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<Failing, u32>>);

/// Kind, name and uid.
type Failing = (String, String, Option<String>);

fn failing<K: Resource<DynamicType = ()>>(object: &K) -> Failing {
    (K::kind(&()).into_owned(), object.name_any(), object.uid())
}

impl Failures {
    /// The pause after another error.
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

/// After an error: tried again soon, and less often the longer it lasts.
fn again<K: Reconciled>(object: Arc<K>, error: &Error, context: Arc<Context>) -> Action {
    let pause = context.failures.pause(failing(object.as_ref()));
    tracing::warn!(kind = %K::kind(&()), name = object.name_any(), %error, again_s = pause.as_secs(), "will be tried again");
    Action::requeue(pause)
}

/// The end of a reconciliation, for the log. Errors were told by their own line already.
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

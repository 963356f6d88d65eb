//! The relay between a worker and a caller that may read slowly, or not at all: backpressure with a deadline.
//!
//! A task of its own reads from the worker and waits for the caller with a bound: a caller that reads nothing for that long loses
//! this answer, and with it the worker's sequence, while no other answer notices. Without the task nothing would notice: a
//! server polls an answer only when its caller has room for more.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    events::{Event, Events},
    permits::Permit,
    refusal::Refusal,
};

/// Events that may lie between the task and the caller; the rest waits at the worker.
const EVENTS_MAX: usize = 16;

/// The events of an answer as its caller takes them. Dropping it ends the answer.
pub(crate) struct Relayed {
    events: mpsc::Receiver<Result<Event, Refusal>>,
    /// The reason why the task gave up.
    given_up: Arc<OnceLock<Refusal>>,
    _task: AbortOnDropHandle<()>,
    _permit: Permit,
}

/// Relays `events` to a caller that has to take something every `idle`.
pub(crate) fn relay(events: Events, idle: Duration, permit: Permit) -> Relayed {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let given_up = Arc::new(OnceLock::new());
    let task = tokio::spawn(pump(events, sender, idle, Arc::clone(&given_up)));
    Relayed { events: receiver, given_up, _task: AbortOnDropHandle::new(task), _permit: permit }
}

async fn pump(
    mut events: Events,
    sender: mpsc::Sender<Result<Event, Refusal>>,
    idle: Duration,
    given_up: Arc<OnceLock<Refusal>>,
) {
    while let Some(event) = events.next().await {
        match timeout(idle, sender.send(event)).await {
            Ok(Ok(())) => {}
            // The caller is gone.
            Ok(Err(_)) => return,
            Err(_) => {
                let refusal = Refusal::Unread { idle };
                tracing::info!(%refusal, "an answer ended");
                events.abandon(&refusal);
                // Set once, here.
                let _ = given_up.set(refusal);
                return;
            }
        }
    }
}

impl Stream for Relayed {
    type Item = Result<Event, Refusal>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.events.poll_recv(context) {
            Poll::Ready(None) => {
                // Said once: the next poll finds nothing.
                let given_up = std::mem::take(&mut self.given_up);
                Poll::Ready(given_up.get().cloned().map(Err))
            }
            other => other,
        }
    }
}

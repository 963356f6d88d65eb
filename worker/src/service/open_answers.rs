//! Answers that callers read, and the end of those that they do not.
//!
//! The engine never waits for a reader, so what is generated and not read stays in memory. A stream whose reader stops is
//! not polled any more, and could not end itself: its answer is kept here as well, and is closed from outside when nothing of it
//! was taken for a while, or when another tenant has more right to its permit. What a reader that comes back finds is the error.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use slm_proto::v1;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{answer::Answer, status};
use crate::permits::Permits;

/// The answers of a worker that are being streamed.
#[derive(Debug)]
pub(crate) struct OpenAnswers {
    answers: Mutex<HashMap<u64, Arc<Mutex<Open>>>>,
    next: AtomicU64,
    /// How long a reader may take nothing.
    idle_max: Duration,
}

#[derive(Debug)]
struct Open {
    answer: State,
    /// Since when there is something that its reader could take and does not.
    ignored_since: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Streaming(Box<Answer>),
    /// With what the reader is told, once.
    Ended(Option<Status>),
}

/// An answer on its way to its reader. Dropping it cancels the request.
#[derive(Debug)]
pub(super) struct AnswerStream {
    number: u64,
    open: Arc<Mutex<Open>>,
    all: Arc<OpenAnswers>,
}

impl OpenAnswers {
    pub(crate) fn new(idle_max: Duration) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::default(), next: AtomicU64::new(0), idle_max })
    }

    pub(super) fn open(self: &Arc<Self>, answer: Answer) -> AnswerStream {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let state = Open { answer: State::Streaming(Box::new(answer)), ignored_since: Some(Instant::now()) };
        let open = Arc::new(Mutex::new(state));
        lock(&self.answers).insert(number, open.clone());
        AnswerStream { number, open, all: self.clone() }
    }

    /// Ends answers that are not read, until `ended`.
    pub(crate) async fn end_unread(self: Arc<Self>, permits: Permits, ended: CancellationToken) {
        let mut tick =
            tokio::time::interval((self.idle_max / 8).clamp(Duration::from_millis(10), Duration::from_secs(1)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                () = permits.withdrawn() => {}
                _ = tick.tick() => {}
            }
            self.end_unread_now();
        }
    }

    fn end_unread_now(&self) {
        let all: Vec<_> = lock(&self.answers).values().cloned().collect();
        let now = Instant::now();
        for open in all {
            let mut open = lock(&open);
            let Open { answer: State::Streaming(answer), ignored_since } = &mut *open else { continue };
            // It may have been asked for when there was nothing, and not again since.
            if ignored_since.is_none() && answer.has_more() {
                *ignored_since = Some(now);
            }
            let status = if answer.is_withdrawn() {
                status::displaced_unread()
            } else if ignored_since.is_some_and(|since| now.duration_since(since) >= self.idle_max) {
                status::not_read(self.idle_max)
            } else {
                continue;
            };
            tracing::info!(reason = status.message(), "answer ended");
            let closed = std::mem::replace(&mut open.answer, State::Ended(Some(status)));
            // Freed without the lock, which its reader may want.
            drop(open);
            drop(closed);
        }
    }
}

impl Stream for AnswerStream {
    type Item = Result<v1::GenerateResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut open = lock(&self.open);
        open.ignored_since = None;
        let next = match &mut open.answer {
            State::Streaming(answer) => answer.poll_next(context),
            State::Ended(status) => return Poll::Ready(status.take().map(Err)),
        };
        match &next {
            Poll::Ready(Some(_)) => open.ignored_since = Some(Instant::now()),
            Poll::Ready(None) => open.answer = State::Ended(None),
            Poll::Pending => {}
        }
        next
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        lock(&self.all.answers).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};
    use tokio::sync::mpsc;
    use tonic::Code;

    use super::*;
    use crate::{
        engine::{Event, FinishReason},
        permits::{Permit, PermitLimits},
        sample::{Logprobs, TokenLogprob},
        serving_metrics::ServingMetrics,
    };

    const IDLE: Duration = Duration::from_secs(60);

    struct House {
        permits: Permits,
        all: Arc<OpenAnswers>,
        ended: CancellationToken,
    }

    impl House {
        fn new(open_max: usize) -> Self {
            let permits = Permits::new(PermitLimits { active_max: open_max, open_max });
            let (all, ended) = (OpenAnswers::new(IDLE), CancellationToken::new());
            tokio::spawn(all.clone().end_unread(permits.clone(), ended.clone()));
            Self { permits, all, ended }
        }

        fn answer(&self, tenant: &str) -> (mpsc::Sender<Event>, AnswerStream, Arc<Permit>) {
            let permit = self.permits.enter(&tenant.into(), 0).unwrap();
            let (events, receiver) = mpsc::channel(100);
            let meter = ServingMetrics::new().answer("m", "m", std::time::Instant::now());
            (events, self.all.open(Answer::new(receiver, permit.clone(), None, None, 1, meter)), permit)
        }
    }

    impl Drop for House {
        fn drop(&mut self) {
            self.ended.cancel();
        }
    }

    fn token() -> Event {
        let chosen = TokenLogprob { id: 1, logprob: 0.0 };
        Event::Token { id: 1, logprobs: Some(Logprobs { chosen, top: Vec::new() }) }
    }

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_and_gives_its_permit_back() {
        let house = House::new(4);
        let (events, mut stream, permit) = house.answer("");
        drop(permit);
        events.send(token()).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok());
        events.send(token()).await.unwrap();
        tokio::time::sleep(IDLE - Duration::from_secs(2)).await;
        assert_eq!(house.permits.counts().open(), 1, "it may still come back");
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(house.permits.counts().open(), 0);
        assert!(events.is_closed(), "the engine stops, too");
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (Code::Aborted, "nothing of the answer was read for 60s; it was ended")
        );
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn so_does_one_whose_reader_asked_for_more_and_never_came_back() {
        let house = House::new(4);
        let (events, mut stream, permit) = house.answer("");
        drop(permit);
        assert!(stream.next().now_or_never().is_none());
        tokio::time::sleep(10 * IDLE).await;
        assert_eq!(house.permits.counts().open(), 1, "there is nothing to read");
        events.send(token()).await.unwrap();
        tokio::time::sleep(IDLE + Duration::from_secs(4)).await;
        assert_eq!(house.permits.counts().open(), 0);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Aborted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_waits_for_the_engine_is_not_slow() {
        let house = House::new(4);
        let (events, mut stream, _permit) = house.answer("");
        let mut next = stream.next();
        assert!((&mut next).now_or_never().is_none());
        tokio::time::sleep(10 * IDLE).await;
        events.send(token()).await.unwrap();
        assert!(next.await.unwrap().is_ok());
        // Nor is one that takes a message now and then.
        for _ in 0..5 {
            events.send(token()).await.unwrap();
            tokio::time::sleep(IDLE / 2).await;
            assert!(stream.next().await.unwrap().is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unread_answer_goes_when_another_tenant_needs_its_permit() {
        let house = House::new(2);
        let slow: Vec<_> = (0..2).map(|_| house.answer("slow")).collect();
        for (events, _, permit) in &slow {
            events.send(Event::Finished { reason: FinishReason::Stop, generated: 0 }).await.unwrap();
            permit.complete();
        }
        let permit = house.permits.enter(&"quick".into(), 0).unwrap();
        settle().await;
        assert!(slow[0].0.is_closed() && !slow[1].0.is_closed(), "what it held is freed at once");
        drop(permit);
        let mut streams: Vec<_> = slow.into_iter().map(|(_, stream, _)| stream).collect();
        let error = streams[0].next().await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(matches!(streams[1].next().await, Some(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_stays_of_answers_that_were_read_or_dropped() {
        let house = House::new(2);
        let (events, mut stream, permit) = house.answer("");
        drop(permit);
        events.send(Event::Finished { reason: FinishReason::Stop, generated: 0 }).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok() && stream.next().await.is_none());
        assert_eq!(house.permits.counts().open(), 0, "it was read to its end");
        drop(stream);
        let (_, stream, _) = house.answer("");
        drop(stream);
        assert!(lock(&house.all.answers).is_empty());
        assert_eq!(house.permits.counts().open(), 0);
    }
}

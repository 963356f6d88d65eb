//! The answer of one worker, as events for a caller.
//!
//! Dropping it drops the worker's stream, which is how a caller that goes away stops the generation.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
    vec::IntoIter,
};

use futures::Stream;
use slm_proto::v1::{Completion, Delta, FinishReason, Finished, GenerateResponse, Started, Usage, generate_response};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, Streaming, TimeoutExpired};

use crate::{
    metrics::Meter,
    permits::Permit,
    refusal::Refusal,
    relay::{Relayed, relay},
    shadow::Tap,
};

/// An answer that has begun: its first event is here already.
pub(crate) struct Answer {
    pub(crate) started: Started,
    pub(crate) events: Events,
    /// Longest time that its caller may read nothing.
    pub(crate) reader_idle: Duration,
    /// Counts it as open.
    pub(crate) permit: Permit,
}

/// One step of an answer.
#[derive(Debug)]
pub(crate) enum Event {
    Delta(Delta),
    Finished(Finished),
}

/// Deltas, then one Finished, or an error in between, and nothing after either.
pub(crate) struct Events {
    /// Events that are here already.
    pub(crate) begun: IntoIter<Event>,
    /// `None` once it has ended.
    pub(crate) stream: Option<(Streaming<GenerateResponse>, OpenStream)>,
    /// Whether the caller gets the probabilities of tokens.
    pub(crate) probabilities: bool,
    /// What a candidate in the shadow is compared with, if it gets a copy of the request.
    pub(crate) tap: Option<Tap>,
    /// Deadline of the request.
    pub(crate) deadline: Pin<Box<Sleep>>,
    /// Deadline of the worker's next message.
    pub(crate) silence: Pin<Box<Sleep>>,
    pub(crate) worker_idle: Duration,
    pub(crate) worker: Arc<str>,
    pub(crate) meter: Meter,
}

/// Adds what a delta says and calls.
pub(crate) fn say(text: &mut String, delta: &Delta) {
    text.push_str(&delta.text);
    for call in &delta.tool_calls {
        text.extend([call.name.as_str(), call.arguments.as_str()]);
    }
}

/// Counts a stream to a worker for as long as it is open.
pub(crate) struct OpenStream(Arc<AtomicU32>);

impl OpenStream {
    pub(crate) fn new(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The event in a worker's message after Started.
pub(crate) fn event(message: GenerateResponse) -> Result<Event, Status> {
    match message.event {
        Some(generate_response::Event::Delta(delta)) => Ok(Event::Delta(delta)),
        Some(generate_response::Event::Finished(finished)) => Ok(Event::Finished(finished)),
        Some(generate_response::Event::Started(_)) | None => {
            Err(Status::internal("the worker sent an empty event, or Started in the middle of an answer"))
        }
    }
}

impl Events {
    /// An answer of a route's own.
    pub(crate) fn said(text: String, meter: Meter, deadline: Instant) -> Self {
        let finished =
            Finished { reason: FinishReason::Stop.into(), usage: Some(Usage::default()), ..Default::default() };
        let said = Event::Delta(Delta { text, ..Delta::default() });
        Self {
            begun: vec![said, Event::Finished(finished)].into_iter(),
            stream: None,
            probabilities: false,
            tap: None,
            deadline: Box::pin(sleep_until(deadline)),
            silence: Box::pin(sleep_until(deadline)),
            worker_idle: Duration::MAX,
            worker: Arc::from(""),
            meter,
        }
    }

    fn end(&mut self, refusal: Refusal) -> Poll<Option<Result<Event, Refusal>>> {
        // Callers are not told which worker it was.
        // Nor does a log have words that may be the caller's, where they came from outside.
        tracing::info!(worker = %self.worker, code = ?refusal.code(), "an answer ended early");
        self.stream = None;
        self.meter.failed(refusal.code());
        Poll::Ready(Some(Err(refusal)))
    }

    /// Ends it before its end, for `refusal`.
    pub(crate) fn abandon(mut self, refusal: &Refusal) {
        self.meter.failed(refusal.code());
    }

    /// Nothing has come: whether to wait on.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, Refusal>>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return self.end(Refusal::DeadlineExceeded);
        }
        if self.silence.as_mut().poll(context).is_ready() {
            return self.end(Refusal::Silent { idle: self.worker_idle });
        }
        Poll::Pending
    }

    fn pass(&mut self, mut event: Event) -> Poll<Option<Result<Event, Refusal>>> {
        if let (Event::Delta(delta), Some(tap)) = (&event, &mut self.tap) {
            tap.add(delta);
        }
        match &mut event {
            Event::Finished(finished) => {
                if let Some(tap) = self.tap.take() {
                    tap.send();
                }
                let usage = finished.usage.unwrap_or_default();
                self.meter.finished(usage.prompt_tokens, usage.completion_tokens);
                self.stream = None;
            }
            Event::Delta(delta) if !self.probabilities => delta.logprobs.clear(),
            Event::Delta(_) => {}
        }
        Poll::Ready(Some(Ok(event)))
    }
}

impl Stream for Events {
    type Item = Result<Event, Refusal>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(event) = this.begun.next() {
            return this.pass(event);
        }
        let Some((stream, _)) = &mut this.stream else { return Poll::Ready(None) };
        let message = match Pin::new(stream).poll_next(context) {
            Poll::Ready(message) => message,
            Poll::Pending => return this.wait(context),
        };
        this.silence.as_mut().reset(Instant::now() + this.worker_idle);
        match message.map(|message| message.and_then(event)) {
            Some(Ok(event)) => this.pass(event),
            Some(Err(status)) => {
                let refusal = Refusal::Worker(attributed(status));
                this.end(refusal)
            }
            None => {
                let what = "the worker ended the answer before it was finished";
                this.end(Refusal::Worker(Status::unavailable(what)))
            }
        }
    }
}

/// A broken connection becomes UNAVAILABLE, and a deadline that tonic was the first to notice what it is; what a worker said itself
/// stays as it is.
pub(crate) fn attributed(status: Status) -> Status {
    match std::error::Error::source(&status) {
        None => return status,
        Some(source) if source.is::<TimeoutExpired>() => return Refusal::DeadlineExceeded.into(),
        Some(_) => {}
    }
    tracing::info!(status = status.message(), "the connection to a worker broke");
    Status::unavailable("the connection to the worker broke; try again")
}

impl Answer {
    /// The worker that gives it.
    pub(crate) fn worker(&self) -> Arc<str> {
        Arc::clone(&self.events.worker)
    }

    /// Event by event, to a caller that may read slowly.
    pub(crate) fn relayed(self) -> (Started, Relayed) {
        (self.started, relay(self.events, self.reader_idle, self.permit))
    }

    /// The whole answer in one message.
    pub(crate) async fn complete(self) -> Result<Completion, Refusal> {
        use futures::StreamExt as _;
        let Self { started, mut events, permit: _permit, .. } = self;
        let mut completion = Completion { started: Some(started), ..Default::default() };
        while let Some(event) = events.next().await {
            match event? {
                Event::Delta(delta) => completion.add(delta),
                Event::Finished(finished) => completion.finish(finished),
            }
        }
        Ok(completion)
    }
}

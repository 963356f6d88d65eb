//! An answer: turns engine events into response messages. Dropping it cancels the request.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use slm_proto::v1::{self, generate_response::Event as Response};
use tokio::sync::mpsc;
use tonic::Status;

use super::status;
use crate::{
    engine::{Event, FinishReason},
    permits::Permit,
    sample::{Logprobs, TokenLogprob},
    serving_metrics::AnswerMeter,
    text::{Piece, TextStream, TokenBytes},
    tools::AnswerReader,
};

/// Bound on the tokens of a message. Small, because a stalled reader's messages stay in the connection's buffers.
const DELTA_TOKENS_MAX: u32 = 32;

#[derive(Debug)]
pub(super) struct Answer {
    events: Option<mpsc::Receiver<Event>>,
    permit: Arc<Permit>,
    /// `None` for a model without a tokenizer, whose answers have no text.
    text: Option<TextStream>,
    /// Takes thoughts and calls out of the text; `None` where all is text.
    reader: Option<AnswerReader>,
    /// Names of tokens in log-probabilities; `None` without a tokenizer.
    bytes: Option<Arc<TokenBytes>>,
    prompt_tokens: u32,
    /// Prompt tokens found in the prefix cache.
    cached: u32,
    generated: u32,
    /// The delta under construction.
    delta: v1::Delta,
    /// Sent after the current delta.
    last: Option<v1::Finished>,
    meter: AnswerMeter,
}

impl Answer {
    pub(super) fn new(
        events: mpsc::Receiver<Event>,
        permit: Arc<Permit>,
        text: Option<TextStream>,
        bytes: Option<Arc<TokenBytes>>,
        prompt_tokens: u32,
        meter: AnswerMeter,
    ) -> Self {
        let delta = v1::Delta::default();
        Self {
            events: Some(events),
            permit,
            text,
            reader: None,
            bytes,
            prompt_tokens,
            cached: 0,
            generated: 0,
            delta,
            last: None,
            meter,
        }
    }

    /// The same answer, read by `reader`, which sees these control tokens.
    pub(super) fn read_by(self, reader: Option<(AnswerReader, Vec<u32>)>) -> Self {
        let Some((reader, shown)) = reader else { return self };
        Self { text: self.text.map(|text| text.showing(shown)), reader: Some(reader), ..self }
    }

    /// The same answer, whose text begins with `text`.
    pub(super) fn after(mut self, text: Option<String>) -> Self {
        self.delta.text = text.unwrap_or_default();
        self
    }

    /// Number of prompt tokens.
    pub(super) fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    /// Whether its permit was withdrawn for another tenant.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.permit.is_withdrawn()
    }

    /// Whether there are engine events that are in no message yet.
    pub(super) fn has_more(&self) -> bool {
        self.last.is_some() || self.events.as_ref().is_some_and(|events| !events.is_empty())
    }

    /// The next message; `None` after `Finished` or an error.
    pub(super) async fn next(&mut self) -> Option<Result<v1::GenerateResponse, Status>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// See [`next`](Self::next).
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<v1::GenerateResponse, Status>>> {
        if let Some(finished) = self.last.take() {
            return Poll::Ready(Some(Ok(message(Response::Finished(finished)))));
        }
        // Waits for one event, then takes all that are pending: a slow reader gets fewer, larger deltas.
        while let Some(events) = self.events.as_mut() {
            let idle = self.delta.tokens == 0 || is_empty(&self.delta);
            if !idle && self.delta.tokens >= DELTA_TOKENS_MAX {
                break;
            }
            let event = match events.poll_recv(context) {
                Poll::Ready(event) => event,
                Poll::Pending if idle => return Poll::Pending,
                Poll::Pending => break,
            };
            match event {
                None if !idle => break,
                None => {
                    self.events = None;
                    return Poll::Ready(Some(Err(status::engine_gone())));
                }
                Some(Event::Failed(failure)) => {
                    self.meter.failed();
                    self.events = None;
                    return Poll::Ready(Some(Err(failure.into())));
                }
                Some(Event::Read { cached }) => self.cached = cached as u32,
                Some(Event::Token { id, logprobs }) => {
                    let mut delta = std::mem::take(&mut self.delta);
                    self.token(id, logprobs, &mut delta);
                    self.delta = delta;
                }
                Some(Event::End { id, logprobs }) => {
                    let mut delta = std::mem::take(&mut self.delta);
                    self.end_token(id, logprobs, &mut delta);
                    self.delta = delta;
                }
                Some(Event::Finished { reason, generated }) => {
                    self.generated = generated as u32;
                    let mut delta = std::mem::take(&mut self.delta);
                    self.finish(reason, &mut delta);
                    self.delta = delta;
                }
            }
        }
        let delta = std::mem::take(&mut self.delta);
        if is_empty(&delta) {
            return Poll::Ready(self.last.take().map(|finished| Ok(message(Response::Finished(finished)))));
        }
        Poll::Ready(Some(Ok(message(Response::Delta(delta)))))
    }

    fn token(&mut self, id: u32, logprobs: Option<Logprobs>, delta: &mut v1::Delta) {
        self.meter.token();
        delta.tokens += 1;
        self.generated += 1;
        if let Some(logprobs) = logprobs {
            delta.logprobs.push(describe(&logprobs, self.bytes.as_deref()));
        }
        let Some(text) = &mut self.text else { return };
        match text.push(id) {
            Piece::Text(text) => self.read(text, delta),
            Piece::Stopped(text) => {
                self.read(text, delta);
                return self.end(v1::FinishReason::Stop, delta);
            }
        }
        if self.reader.as_ref().is_some_and(AnswerReader::is_done) {
            self.end(v1::FinishReason::Stop, delta);
        }
    }

    fn read(&mut self, text: String, delta: &mut v1::Delta) {
        match &mut self.reader {
            Some(reader) => reader.push(text, delta),
            None => delta.text.push_str(&text),
        }
    }

    /// Handles the token that ended the answer. It is not part of the text, but has log-probabilities, and a stop
    /// string may name it.
    fn end_token(&mut self, id: u32, logprobs: Option<Logprobs>, delta: &mut v1::Delta) {
        if self.bytes.as_ref().is_some_and(|bytes| bytes.is_special(id)) {
            return self.token(id, logprobs, delta);
        }
        delta.tokens += 1;
        self.generated += 1;
        if let Some(logprobs) = logprobs {
            delta.logprobs.push(describe(&logprobs, self.bytes.as_deref()));
        }
    }

    fn finish(&mut self, reason: FinishReason, delta: &mut v1::Delta) {
        let mut reason = match reason {
            FinishReason::Stop => v1::FinishReason::Stop,
            FinishReason::Length => v1::FinishReason::Length,
        };
        match self.text.as_mut().map(TextStream::finish) {
            Some(Piece::Text(text)) => self.read(text, delta),
            Some(Piece::Stopped(text)) => {
                self.read(text, delta);
                reason = v1::FinishReason::Stop;
            }
            None => {}
        }
        self.end(reason, delta);
    }

    /// Closes the event channel; the engine frees the place on its next step.
    fn end(&mut self, mut reason: v1::FinishReason, delta: &mut v1::Delta) {
        self.meter.finished(self.prompt_tokens, self.generated);
        self.events = None;
        if let Some(reader) = &mut self.reader {
            reader.finish(delta);
            if reader.has_called() && reason == v1::FinishReason::Stop {
                reason = v1::FinishReason::ToolCalls;
            }
        }
        let usage = v1::Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.generated,
            cached_tokens: self.cached,
        };
        let stop = self.text.as_ref().and_then(TextStream::matched).unwrap_or_default().to_owned();
        self.last = Some(v1::Finished { reason: reason.into(), usage: Some(usage), stop, cost: None });
    }
}

fn is_empty(delta: &v1::Delta) -> bool {
    delta.text.is_empty() && delta.logprobs.is_empty() && delta.reasoning.is_empty() && delta.tool_calls.is_empty()
}

fn message(event: Response) -> v1::GenerateResponse {
    v1::GenerateResponse { event: Some(event) }
}

fn describe(logprobs: &Logprobs, bytes: Option<&TokenBytes>) -> v1::TokenLogprob {
    let top = |token: &TokenLogprob| v1::TopLogprob {
        id: token.id,
        token: bytes.map(|bytes| bytes.get(token.id).to_vec()).unwrap_or_default(),
        logprob: token.logprob,
    };
    let chosen = top(&logprobs.chosen);
    v1::TokenLogprob {
        id: chosen.id,
        token: chosen.token,
        logprob: chosen.logprob,
        top: logprobs.top.iter().map(top).collect(),
        special: bytes.is_some_and(|bytes| bytes.is_special(chosen.id)),
    }
}

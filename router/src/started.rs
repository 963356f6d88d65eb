//! An answer of a worker that has begun, and may be read to its end before anything of it goes to the caller.

use std::{sync::Arc, time::Duration};

use slm_proto::v1::{Candidate, CandidateOutcome, Cost, Decision, GenerateResponse, Started, Usage, generate_response};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Status, Streaming};

use crate::{
    cascade::Confidence,
    config::Limits,
    events::{Answer, Event, Events, OpenStream, attributed, event, say},
    metrics::Meter,
    permits::Permit,
    refusal::Refusal,
    shadow::Tap,
    view::Worker,
};

/// Bytes of an answer that is read before it is given. Longer ones are not judged.
const READ_BYTES_MAX: usize = 256 << 10;

/// An answer that has begun.
pub(crate) struct StartedAnswer {
    started: Started,
    /// Events that are here: at least the first.
    begun: Vec<Event>,
    /// `None` once it has ended.
    stream: Option<(Streaming<GenerateResponse>, OpenStream)>,
    worker: Arc<str>,
}

impl StartedAnswer {
    /// Reads the first two events of a stream.
    pub(crate) async fn begin(
        mut stream: Streaming<GenerateResponse>,
        decision: Decision,
        open: OpenStream,
        worker: &Worker,
    ) -> Result<Self, Status> {
        let cut_short = || Status::unavailable("the worker ended the answer before its first token");
        let started = match stream.message().await.map_err(attributed)?.ok_or_else(cut_short)?.event {
            Some(generate_response::Event::Started(started)) => started,
            _ => return Err(Status::internal("the worker's answer does not begin with Started")),
        };
        let first = stream.message().await.map_err(attributed)?.ok_or_else(cut_short)?;
        let first = event(first).map_err(attributed)?;
        let decision = Decision { chosen: started.expert.clone(), ..decision };
        let started = Started { decision: Some(decision), ..started };
        Ok(Self { started, begun: vec![first], stream: Some((stream, open)), worker: Arc::clone(&worker.url) })
    }

    /// The name of its expert.
    pub(crate) fn expert(&self) -> &str {
        self.started.expert.as_ref().map_or("", |expert| &expert.name)
    }

    /// Reads it to its end, and tells its confidence; `None` if it is longer than what is read.
    pub(crate) async fn read(&mut self, idle: Duration) -> Result<Option<Confidence>, Status> {
        let mut confidence = Confidence::default();
        let mut bytes = 0;
        let mut at = 0;
        loop {
            while let Some(event) = self.begun.get(at) {
                at += 1;
                match event {
                    Event::Finished(_) => {
                        self.stream = None;
                        return Ok(Some(confidence));
                    }
                    Event::Delta(delta) => {
                        confidence.add(delta);
                        bytes += delta.text.len() + delta.logprobs.len() * size_of::<slm_proto::v1::TokenLogprob>();
                    }
                }
            }
            if bytes > READ_BYTES_MAX {
                return Ok(None);
            }
            let broken = || Status::unavailable("the worker ended the answer before it was finished");
            let Some((stream, _)) = &mut self.stream else { return Err(broken()) };
            let silent = |_| Status::deadline_exceeded(Refusal::Silent { idle }.to_string());
            let message = timeout(idle, stream.message()).await.map_err(silent)?.map_err(attributed)?;
            self.begun.push(event(message.ok_or_else(broken)?)?);
        }
    }

    /// What it says and calls, as far as it was read.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for event in &self.begun {
            if let Event::Delta(delta) = event {
                say(&mut text, delta);
            }
        }
        text
    }

    /// Tokens and cost of one that was read to its end.
    pub(crate) fn spent(&self) -> (Usage, Option<Cost>) {
        match self.begun.last() {
            Some(Event::Finished(finished)) => (finished.usage.unwrap_or_default(), finished.cost.clone()),
            _ => Default::default(),
        }
    }

    /// Makes these its tokens and its cost, if it was read to its end.
    pub(crate) fn bill(&mut self, usage: Usage, cost: Option<Cost>) {
        if let Some(Event::Finished(finished)) = self.begun.last_mut() {
            (finished.usage, finished.cost) = (Some(usage), cost);
        }
    }

    /// It is given for `decision`, as the answer of its own expert and worker.
    pub(crate) fn decide(&mut self, decision: Decision) {
        let own = self.started.decision.take().unwrap_or_default();
        self.started.decision = Some(Decision { chosen: own.chosen, worker: own.worker, ..decision });
    }

    /// Changes the decision of a caller who asked for an explanation.
    pub(crate) fn explain(&mut self, change: impl FnOnce(&mut Decision)) {
        if let Some(decision) = self.started.decision.as_mut().filter(|decision| !decision.reason.is_empty()) {
            change(decision);
        }
    }

    /// It takes the place of `former`, whose answer was not good enough for the reason `why`.
    pub(crate) fn follows(&mut self, former: Self, why: &str, confidence: f64) {
        let Some(mut before) = former.started.decision else { return };
        let name = before.chosen.as_ref().map(|expert| expert.name.clone()).unwrap_or_default();
        self.explain(|decision| {
            before.reason += &format!("; {why}: {}", decision.reason);
            if let Some(chosen) =
                before.candidates.iter_mut().find(|candidate| candidate.outcome() == CandidateOutcome::Chosen)
            {
                chosen.outcome = CandidateOutcome::NotConfident.into();
                chosen.why_not = format!("{name}: {why}");
                chosen.score = Some(confidence);
            }
            before.candidates.push(Candidate {
                expert: decision.chosen.clone(),
                rule: "cascade".to_owned(),
                outcome: CandidateOutcome::Chosen.into(),
                ..Candidate::default()
            });
            let own = std::mem::take(decision);
            *decision = Decision { chosen: own.chosen, worker: own.worker, ..before };
        });
    }

    /// For its caller; without the probabilities of tokens, if these were asked for by the router alone.
    pub(crate) fn into_answer(
        self,
        meter: Meter,
        deadline: Instant,
        limits: &Limits,
        (permit, probabilities): (Permit, bool),
        tap: Option<Tap>,
    ) -> Answer {
        let events = Events {
            begun: self.begun.into_iter(),
            stream: self.stream,
            probabilities,
            tap,
            deadline: Box::pin(sleep_until(deadline)),
            silence: Box::pin(sleep(limits.worker_idle)),
            worker_idle: limits.worker_idle,
            worker: self.worker,
            meter,
        };
        Answer { started: self.started, events, reader_idle: limits.reader_idle, permit }
    }
}

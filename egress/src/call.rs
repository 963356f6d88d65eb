//! One call: recorded, sent, tried again before its first byte, and followed to its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Response, header};
use serde_json::Value;
use slm_proto::{
    trailers,
    v1::{ExternalRequest, GenerateRequest, generate_response::Event},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, metadata::MetadataValue};

use crate::{
    answer::{Answer, Broken},
    attempt::{Blame, Failure, broken, send, silent},
    audit::Audit,
    metrics::Metrics,
    model::Model,
    record::Record,
    registry::Registry,
    restore::{Leaving, Restoring},
    sse,
};

/// Attempts of one request, before the first byte of an answer.
const ATTEMPTS_MAX: u32 = 3;
/// Pause between attempts: first and longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What all calls share.
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) audit: Audit,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether records have the texts, too.
    pub(crate) audit_content: bool,
    pub(crate) redactor: slm_redact::Redactor,
    /// Cancelled when answers that still run are to end.
    pub(crate) cut: CancellationToken,
}

/// An answer that has begun.
pub(crate) struct Call {
    response: Response,
    /// `None` for an answer that is no stream.
    events: Option<sse::Events>,
    answer: Answer,
    record: Record,
    bytes: usize,
}

impl Call {
    /// Sends the request, until the headers of an answer are here.
    ///
    /// # Errors
    /// What the caller hears.
    pub(crate) async fn begin(
        shared: &Arc<Shared>,
        model: &Arc<Model>,
        external: &ExternalRequest,
        request: &GenerateRequest,
        (body, leaving): (&Value, Leaving),
    ) -> Result<Self, Status> {
        let body = body.to_string();
        let restoring = Restoring::from(leaving);
        // It may have waited for its place: the model may be another one by now.
        if !Arc::ptr_eq(model, &shared.registry.model(&model.name)?) {
            return Err(Status::unavailable(format!("the ExternalModel `{}` has just changed; try again", model.name)));
        }
        if !model.circuit().admit(Instant::now()) {
            return Err(Status::unavailable(format!(
                "the ExternalModel `{}` has failed too often and is not asked now; try again later",
                model.name
            )));
        }
        let mut record = Record::begin(shared, model, (external, request), &body, &restoring).await?;
        let mut attempt = 1;
        let response = loop {
            match send(model, body.clone(), restoring.vault()).await {
                Ok(response) => break response,
                Err(Failure { status, again: Some(wait), .. }) if attempt < ATTEMPTS_MAX => {
                    let pause = wait.unwrap_or_else(|| slm_backoff::pause(attempt, PAUSE.0, PAUSE.1));
                    tracing::info!(model = model.name, code = ?status.code(), "asking again");
                    shared.metrics.retried(&model.name);
                    attempt += 1;
                    sleep(pause).await;
                }
                Err(Failure { mut status, blame, .. }) => {
                    record.failed(&status, blame);
                    status.metadata_mut().insert(trailers::ASKED, MetadataValue::from_static("true"));
                    return Err(status);
                }
            }
        };
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let events = (!kind.starts_with("application/json")).then(sse::Events::default);
        Ok(Self { response, events, answer: Answer::new(restoring), record, bytes: 0 })
    }

    /// The next events; none after the last.
    ///
    /// # Errors
    /// What breaks the answer.
    pub(crate) async fn next(&mut self) -> Result<Vec<Event>, Status> {
        while !self.record.has_ended() {
            let events = self.step().await.map_err(|mut status| {
                self.record.failed(&status, Blame::Model);
                status.metadata_mut().insert(trailers::ASKED, MetadataValue::from_static("true"));
                status
            })?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
        Ok(Vec::new())
    }

    async fn step(&mut self) -> Result<Vec<Event>, Status> {
        let silence = self.record.model.silence();
        let chunk = timeout(silence, self.response.chunk()).await.map_err(|_| silent(&self.record.model))?;
        let chunk = chunk.map_err(|error| broken(&self.record.model, &error.without_url()))?;
        self.bytes += chunk.as_ref().map_or(0, bytes::Bytes::len);
        if self.bytes > ANSWER_BYTES_MAX {
            return Err(broken(&self.record.model, &format!("its answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
        let Some(events) = &mut self.events else { return self.whole(chunk).await };
        let ended = chunk.is_none();
        let data = match chunk {
            Some(chunk) => events.push(&chunk).map_err(|_| broken(&self.record.model, &"a line does not end"))?,
            None => events.finish().into_iter().collect(),
        };
        let mut said = Vec::new();
        for data in data {
            said.extend(self.answer.piece(&data).map_err(|error| self.status(&error))?);
        }
        self.record.add(&said);
        if ended || self.answer.done() {
            said.extend(self.end()?);
        }
        Ok(said)
    }

    /// An answer that came in one piece, although a stream was asked for.
    async fn whole(&mut self, first: Option<bytes::Bytes>) -> Result<Vec<Event>, Status> {
        let mut body = first.unwrap_or_default().to_vec();
        let silence = self.record.model.silence();
        loop {
            let chunk = timeout(silence, self.response.chunk()).await.map_err(|_| silent(&self.record.model))?;
            let Some(chunk) = chunk.map_err(|error| broken(&self.record.model, &error.without_url()))? else { break };
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(broken(&self.record.model, &format!("its answer has more than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let mut said = self.answer.piece(&String::from_utf8_lossy(&body)).map_err(|error| self.status(&error))?;
        self.record.add(&said);
        said.extend(self.end()?);
        Ok(said)
    }

    fn end(&mut self) -> Result<Vec<Event>, Status> {
        let events = self.answer.finish(self.record.model.spec.price.as_ref()).map_err(|error| self.status(&error))?;
        self.record.add(&events);
        self.record.finished(&self.answer, &events);
        Ok(events)
    }

    fn status(&self, error: &Broken) -> Status {
        broken(&self.record.model, error)
    }
}

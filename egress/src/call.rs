//! One call: recorded, sent, tried again before its first byte, and followed to its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Response, StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use slm_proto::trailers;
use slm_proto::v1::{ExternalRequest, GenerateRequest, generate_response::Event};
use slm_redact::Vault;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, metadata::MetadataValue};

use crate::{
    answer::{Answer, Broken, begin, reported},
    audit::{self, Audit},
    metrics::Metrics,
    model::Model,
    registry::Registry,
    restore::{Leaving, Restoring},
    sse,
};

/// Attempts of one request, before the first byte of an answer.
const ATTEMPTS_MAX: u32 = 3;
/// Pause between attempts: first and longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// The longest `Retry-After` that is waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;

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

/// The record of a call. One that is dropped before its end was cancelled.
pub(crate) struct Record {
    shared: Arc<Shared>,
    model: Arc<Model>,
    fields: Map<String, Value>,
    text: String,
    digest: Sha256,
    bytes: usize,
    begun: Instant,
    /// Whether the model has been judged by this call.
    told: bool,
    /// Whether there is an entry of what left.
    sent: bool,
    ended: bool,
}

/// A failed attempt.
struct Failure {
    status: Status,
    /// Whether another attempt may succeed, and after how long.
    again: Option<Option<Duration>>,
    blame: Blame,
}

/// What a failure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// The request, or a moment.
    Nobody,
    /// The model.
    Model,
    /// The model, whose token may be an old one.
    Token,
}

impl Record {
    /// Writes what is about to leave.
    ///
    /// # Errors
    /// FAILED_PRECONDITION: it cannot be written, so nothing may leave.
    async fn begin(
        shared: &Arc<Shared>,
        model: &Arc<Model>,
        (external, request): (&ExternalRequest, &GenerateRequest),
        body: &str,
        restoring: &Restoring,
    ) -> Result<Self, Status> {
        let counts = restoring.vault().map(|vault| vault.counts().clone()).unwrap_or_default();
        for (kind, count) in &counts {
            shared.metrics.redacted(*kind, *count);
        }
        let placeholders: Map<String, Value> =
            counts.iter().map(|(kind, count)| (kind.to_string(), (*count).into())).collect();
        let said = json!({
            "request_id": request.request_id, "caller": external.caller, "route": external.route,
            "reason": external.reason, "external_model": model.name, "host": model.host(), "model": model.spec.model,
            "redacted": external.redact,
        });
        let Value::Object(fields) = said else { return Err(Status::internal("a record is an object")) };
        let mut sent = entry("sent", &fields);
        sent.insert("bytes".to_owned(), body.len().into());
        sent.insert("sha256".to_owned(), hex::encode(Sha256::digest(body)).into());
        sent.insert("placeholders".to_owned(), placeholders.into());
        if shared.audit_content {
            sent.insert("content".to_owned(), body.into());
        }
        // From here on its end gives the circuit back, however it comes.
        let mut record = Self {
            shared: Arc::clone(shared),
            model: Arc::clone(model),
            fields,
            text: String::new(),
            digest: Sha256::new(),
            bytes: 0,
            begun: Instant::now(),
            told: false,
            sent: false,
            ended: false,
        };
        shared.audit.write(sent).await.map_err(|why| {
            Status::failed_precondition(format!("nothing was sent, because its audit record cannot be written: {why}"))
        })?;
        record.sent = true;
        Ok(record)
    }

    fn add(&mut self, events: &[Event]) {
        for event in events {
            let Event::Delta(delta) = event else { continue };
            self.digest.update(&delta.text);
            self.bytes += delta.text.len();
            if self.shared.audit_content {
                self.text.push_str(&delta.text);
            }
        }
    }

    /// The model answered to the end.
    fn finished(&mut self, answer: &Answer, events: &[Event]) {
        self.model.circuit().succeeded();
        self.told = true;
        let cost = events.iter().find_map(|event| match event {
            Event::Finished(finished) => finished.cost.clone(),
            _ => None,
        });
        let mut more = Map::new();
        if let Some(usage) = answer.usage() {
            self.shared.metrics.used(&self.model.name, usage, cost.as_ref());
            more.insert("prompt_tokens".to_owned(), usage.prompt_tokens.into());
            more.insert("completion_tokens".to_owned(), usage.completion_tokens.into());
        }
        if let Some(cost) = cost {
            more.insert("cost".to_owned(), json!({ "amount": cost.amount, "currency": cost.currency }));
        }
        self.end("answered", more);
    }

    fn failed(&mut self, status: &Status, blame: Blame) {
        if blame != Blame::Nobody {
            self.model.circuit().failed(Instant::now());
            self.told = true;
        }
        let mut more = Map::new();
        // Its message may have words of the endpoint, and those may be the caller's.
        more.insert("error".to_owned(), format!("{:?}", status.code()).into());
        self.end("failed", more);
        if blame != Blame::Nobody {
            self.shared.registry.failed(blame == Blame::Token);
        }
    }

    fn end(&mut self, outcome: &'static str, more: Map<String, Value>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if !self.told {
            self.model.circuit().released();
        }
        let took = self.begun.elapsed();
        self.shared.metrics.ended(&self.model.name, outcome, took);
        if !self.sent {
            return;
        }
        let mut record = entry("ended", &self.fields);
        record.insert("outcome".to_owned(), outcome.into());
        record.insert("milliseconds".to_owned(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX).into());
        record.insert("bytes".to_owned(), self.bytes.into());
        record.insert("sha256".to_owned(), hex::encode(std::mem::take(&mut self.digest).finalize()).into());
        record.extend(more);
        if self.shared.audit_content {
            record.insert("content".to_owned(), std::mem::take(&mut self.text).into());
        }
        self.shared.audit.write_later(record);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end("cancelled", Map::new());
    }
}

fn entry(event: &str, fields: &Map<String, Value>) -> Map<String, Value> {
    let head = [("time".to_owned(), audit::now().into()), ("event".to_owned(), event.into())];
    head.into_iter().chain(fields.clone()).collect()
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
        while !self.record.ended {
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

async fn send(model: &Model, body: String, vault: Option<&Vault>) -> Result<Response, Failure> {
    let request = model.client.post(model.url()).header(header::CONTENT_TYPE, "application/json").body(body);
    let request = request.header(header::ACCEPT, "text/event-stream");
    let request = match &model.token {
        Some(token) => request.bearer_auth(&token.0),
        None => request,
    };
    let passing = |status| Failure { status, again: Some(None), blame: Blame::Model };
    let sent = timeout(model.silence(), request.send()).await;
    let response = match sent {
        // Waiting as long again would be too long.
        Err(_) => return Err(Failure { status: silent(model), again: None, blame: Blame::Model }),
        Ok(Err(error)) => return Err(passing(broken(model, &slm_tls::cause::innermost(&error.without_url())))),
        Ok(Ok(response)) => response,
    };
    if response.status().is_success() {
        return Ok(response);
    }
    Err(refused(model, response, vault).await)
}

/// What an answer with an error means.
async fn refused(model: &Model, mut response: Response, vault: Option<&Vault>) -> Failure {
    let code = response.status();
    let wait = response.headers().get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
    let wait = wait.map(Duration::from_secs);
    let mut text = Vec::new();
    while let Ok(Ok(Some(chunk))) = timeout(model.silence(), response.chunk()).await {
        text.extend_from_slice(&chunk);
        if text.len() > ERROR_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let text = match vault {
        Some(vault) => vault.restore(&text),
        None => text,
    };
    let said = serde_json::from_str::<Value>(&text).map_or_else(
        |_| begin(&text),
        |error| if error["error"].is_null() { reported(&error) } else { reported(&error["error"]) },
    );
    let Model { name, .. } = model;
    let answers = format!("the endpoint of the ExternalModel `{name}` answers {}", code.as_u16());
    let says = format!("{answers}: {said}");
    match code {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
            Failure { status: Status::invalid_argument(says), again: None, blame: Blame::Nobody }
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let again = wait.is_none_or(|wait| wait <= RETRY_AFTER_MAX).then_some(wait);
            Failure { status: Status::resource_exhausted(answers), again, blame: Blame::Nobody }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let says =
                format!("the endpoint of the ExternalModel `{name}` refuses its credentials ({})", code.as_u16());
            Failure { status: Status::unavailable(says), again: None, blame: Blame::Token }
        }
        code if code.is_server_error() => {
            let wait = wait.filter(|wait| *wait <= RETRY_AFTER_MAX);
            Failure { status: Status::unavailable(answers), again: Some(wait), blame: Blame::Model }
        }
        // Its words are for those who asked wrongly: what failed there is told to logs on the way.
        _ => Failure { status: Status::unavailable(answers), again: None, blame: Blame::Model },
    }
}

fn silent(model: &Model) -> Status {
    Status::unavailable(format!(
        "the endpoint of the ExternalModel `{}` has sent nothing for {} s",
        model.name, model.spec.timeout_seconds
    ))
}

fn broken(model: &Model, error: &dyn std::fmt::Display) -> Status {
    Status::unavailable(format!("the ExternalModel `{}`: {error}", model.name))
}

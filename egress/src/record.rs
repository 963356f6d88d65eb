//! The record of a call: what leaves, written before it does, and how the call ended; what it says of the model is told to its circuit.

use std::{sync::Arc, time::Instant};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use slm_proto::v1::{ExternalRequest, GenerateRequest, generate_response::Event};
use tonic::Status;

use crate::{answer::Answer, attempt::Blame, audit, call::Shared, model::Model, restore::Restoring};

/// The record of a call. One that is dropped before its end was cancelled.
pub(crate) struct Record {
    shared: Arc<Shared>,
    pub(crate) model: Arc<Model>,
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

impl Record {
    /// Writes what is about to leave.
    ///
    /// # Errors
    /// FAILED_PRECONDITION: it cannot be written, so nothing may leave.
    pub(crate) async fn begin(
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

    /// Whether the call has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Pieces of the answer.
    pub(crate) fn add(&mut self, events: &[Event]) {
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
    pub(crate) fn finished(&mut self, answer: &Answer, events: &[Event]) {
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

    /// The call failed.
    pub(crate) fn failed(&mut self, status: &Status, blame: Blame) {
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

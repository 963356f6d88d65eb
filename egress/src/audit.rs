//! The record of what left: two entries a call, `sent` before and `answered` after. Never the text, unless it is asked for.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};
use thiserror::Error;
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt as _,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Entries that wait to be written. Calls wait beyond that.
const WAITING_MAX: usize = 256;
/// Time for an entry to be written.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Where entries go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// To standard error, as lines that begin with `audit`.
    #[default]
    Log,
    /// JSON lines, appended to this file.
    File(PathBuf),
    /// OTLP over HTTP, to the collector at this URL: `/v1/logs` is added to one without a path.
    Otlp(String),
}

/// A sink that cannot be used.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The file.
    #[error("audit file {}: {error}; records have to be written before anything is sent", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// The client of the collector.
    #[error("audit collector: {0}")]
    Collector(#[from] reqwest::Error),
}

/// The writer of entries.
#[derive(Debug)]
pub(crate) struct Audit {
    entries: mpsc::Sender<Entry>,
    /// Cancelled when no more entries are to come.
    closing: CancellationToken,
    writing: Mutex<Option<JoinHandle<()>>>,
}

struct Entry {
    fields: Map<String, Value>,
    written: Option<oneshot::Sender<Result<(), String>>>,
}

enum Open {
    Log,
    File(File),
    Otlp(reqwest::Client, String),
}

impl Audit {
    /// Opens the sink, and starts the task that writes.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub(crate) async fn start(sink: Sink) -> Result<Self, SinkError> {
        let open = match sink {
            Sink::Log => Open::Log,
            Sink::File(path) => Open::File(append(&path).await.map_err(|error| SinkError::File { path, error })?),
            Sink::Otlp(url) => {
                // A redirect makes a GET of a POST: whoever answered that would not have the record.
                let client = reqwest::Client::builder().timeout(WRITE_MAX).redirect(reqwest::redirect::Policy::none());
                Open::Otlp(client.build()?, logs_url(&url))
            }
        };
        let (entries, waiting) = mpsc::channel(WAITING_MAX);
        let closing = CancellationToken::new();
        let writing = Mutex::new(Some(tokio::spawn(write_all(open, waiting, closing.clone()))));
        Ok(Self { entries, closing, writing })
    }

    /// Writes what waits.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writing) = writing
            && timeout(WRITE_MAX, writing).await.is_err()
        {
            tracing::error!("audit records that waited are lost: writing them takes too long");
        }
    }

    /// Writes an entry, and waits until it is written.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn write(&self, fields: Map<String, Value>) -> Result<(), String> {
        let (written, is_written) = oneshot::channel();
        let entry = Entry { fields, written: Some(written) };
        let written = async {
            self.entries.send(entry).await.map_err(|_| "its writer has ended".to_owned())?;
            is_written.await.unwrap_or_else(|_| Err("its writer has ended".to_owned()))
        };
        timeout(WRITE_MAX, written).await.unwrap_or_else(|_| Err("it takes too long".to_owned()))
    }

    /// Writes an entry of a call that has ended: nobody waits for it.
    pub(crate) fn write_later(&self, fields: Map<String, Value>) {
        if let Err(error) = self.entries.try_send(Entry { fields, written: None }) {
            tracing::error!(%error, "an audit record of an answer is lost");
        }
    }
}

/// Now, RFC 3339.
pub(crate) fn now() -> String {
    k8s_openapi::jiff::Timestamp::now().to_string()
}

async fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).await
}

fn logs_url(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if has_path { url.to_owned() } else { format!("{url}/v1/logs") }
}

async fn write_all(mut open: Open, mut entries: mpsc::Receiver<Entry>, closing: CancellationToken) {
    loop {
        let entry = tokio::select! {
            biased;
            entry = entries.recv() => entry,
            () = closing.cancelled() => {
                entries.close();
                entries.recv().await
            }
        };
        let Some(Entry { fields, written }) = entry else { return };
        // Nothing is sent for a call that has gone, or that waited too long.
        if written.as_ref().is_some_and(oneshot::Sender::is_closed) {
            continue;
        }
        let outcome = write(&mut open, fields).await;
        if let Err(why) = &outcome {
            tracing::error!(why, "an audit record cannot be written");
        }
        if let Some(written) = written {
            // A caller that has gone does not care.
            let _ = written.send(outcome);
        }
    }
}

async fn write(open: &mut Open, fields: Map<String, Value>) -> Result<(), String> {
    let line = Value::Object(fields.clone()).to_string();
    match open {
        Open::Log => {
            // Whatever the level of the log is.
            let written = tokio::io::stderr().write_all(format!("audit {line}\n").as_bytes()).await;
            written.map_err(|error| error.to_string())
        }
        Open::File(file) => {
            let written = async {
                file.write_all(format!("{line}\n").as_bytes()).await?;
                file.flush().await
            };
            written.await.map_err(|error| error.to_string())
        }
        Open::Otlp(client, url) => {
            let sent = client.post(url.as_str()).json(&otlp(&fields, line)).send().await;
            let answer = sent.map_err(|error| error.without_url().to_string())?;
            if answer.status().is_success() {
                Ok(())
            } else {
                Err(format!("the collector answers {}", answer.status()))
            }
        }
    }
}

/// One log record of OTLP/JSON.
fn otlp(fields: &Map<String, Value>, line: String) -> Value {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let attribute = |(key, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        json!({ "key": key, "value": { "stringValue": text } })
    };
    let service = json!({ "key": "service.name", "value": { "stringValue": "slm-egress" } });
    json!({ "resourceLogs": [{
        "resource": { "attributes": [service] },
        "scopeLogs": [{
            "scope": { "name": "slm_egress::audit" },
            "logRecords": [{
                "timeUnixNano": nanos.to_string(), "severityNumber": 9, "severityText": "INFO",
                "body": { "stringValue": line },
                "attributes": fields.iter().map(attribute).collect::<Vec<_>>(),
            }],
        }],
    }] })
}

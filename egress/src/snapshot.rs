//! Desired state: the models outside that there are, as a parent process gives them line by line.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use slm_crds::ExternalModelSpec;
use thiserror::Error;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _},
    sync::watch,
};

/// Bytes of one snapshot.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// All models outside. Generation 0 is the empty snapshot before the first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Externals {
    /// Counts up with every change.
    pub generation: u64,
    /// The models.
    #[serde(default)]
    pub externals: Vec<External>,
}

/// An `ExternalModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Its name.
    pub name: String,
    /// Its spec, as in the manifest.
    pub spec: ExternalModelSpec,
}

/// A line that is no snapshot, or an input that failed.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The pipe broke.
    #[error("reading snapshots: {0}")]
    Read(#[from] std::io::Error),
    /// Not a snapshot.
    #[error("line {line} is not a snapshot of ExternalModels: {reason}; expected one JSON object a line")]
    Snapshot {
        /// Line, counted from 1.
        line: u64,
        /// The parser's error.
        reason: String,
    },
}

/// Publishes one snapshot a line until the end of `reader`.
///
/// # Errors
/// A broken pipe, or a line that is no snapshot.
pub async fn json_lines(
    mut reader: impl AsyncBufRead + Unpin,
    externals: watch::Sender<Arc<Externals>>,
) -> Result<(), SourceError> {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut text).await?;
        if read == 0 {
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let snapshot = serde_json::from_slice::<Externals>(&text)
            .map_err(|error| SourceError::Snapshot { line, reason: error.to_string() })?;
        externals.send_replace(Arc::new(snapshot));
    }
    Ok(())
}

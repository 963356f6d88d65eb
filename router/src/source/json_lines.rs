//! Snapshots from a parent process: one JSON object a line.

use std::sync::Arc;

use thiserror::Error;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _},
    sync::watch,
};

use crate::Swarm;

/// Bytes of one snapshot: ten thousand adapters with descriptions take about 4 MB.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// A line that is no snapshot, or an input that failed.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The pipe broke.
    #[error("reading swarm snapshots: {0}")]
    Read(#[from] std::io::Error),
    /// Not a snapshot.
    #[error("line {line} is not a swarm snapshot: {reason}; expected one JSON object a line")]
    Snapshot {
        /// Line, counted from 1.
        line: u64,
        /// The parser's error.
        reason: String,
    },
}

/// Publishes one snapshot a line until the end of `reader`, which means that the parent is gone. Dropping `swarm` on
/// return is what makes [`crate::run`] drain and end.
///
/// # Errors
/// A broken pipe, or a line that is no snapshot.
pub async fn json_lines(
    mut reader: impl AsyncBufRead + Unpin,
    swarm: watch::Sender<Arc<Swarm>>,
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
        let snapshot = serde_json::from_slice::<Swarm>(&text)
            .map_err(|error| SourceError::Snapshot { line, reason: error.to_string() })?;
        swarm.send_replace(Arc::new(snapshot));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_become_snapshots() {
        let (sender, receiver) = watch::channel(Arc::new(Swarm::default()));
        let text =
            "{\"generation\":1}\n\n{\"generation\":2,\"models\":[{\"name\":\"a\",\"workers\":[\"http://x\"]}]}\n";
        json_lines(text.as_bytes(), sender).await.expect("snapshots");
        assert_eq!(receiver.borrow().generation, 2);
        assert!(receiver.has_changed().is_err(), "the sender is gone");
    }

    #[tokio::test]
    async fn a_wrong_line_is_named() {
        let (sender, _receiver) = watch::channel(Arc::new(Swarm::default()));
        let error = json_lines("{\"generation\":1}\n{\"generatoin\":2}\n".as_bytes(), sender).await.expect_err("wrong");
        assert!(error.to_string().starts_with("line 2 is not a swarm snapshot: unknown field `generatoin`"), "{error}");
    }
}

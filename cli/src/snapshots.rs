//! Snapshots of what a server is to serve, from the process that started it: one JSON object a line of standard input.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use slm_console::exit::Failure;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// Bytes of one snapshot: ten thousand adapters with descriptions take about 4 MB.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Publishes the snapshots of standard input. Its end cancels `shutdown` if it is to be followed; else the last snapshot stays.
///
/// # Errors
/// A broken pipe, or a line that is no snapshot; `shutdown` is cancelled then, too.
pub async fn read<T: DeserializeOwned>(
    what: &'static str,
    sender: watch::Sender<Arc<T>>,
    follow: bool,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let outcome = json_lines(what, BufReader::new(tokio::io::stdin()), &sender).await;
    if follow || outcome.is_err() {
        shutdown.cancel();
    } else {
        // The server ends when the last sender does.
        shutdown.cancelled().await;
    }
    drop(sender);
    outcome
}

async fn json_lines<T: DeserializeOwned>(
    what: &'static str,
    mut reader: impl AsyncBufRead + Unpin,
    sender: &watch::Sender<Arc<T>>,
) -> Result<(), Failure> {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut text).await;
        if read.map_err(|error| Failure::failed(format!("reading snapshots: {error}")))? == 0 {
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let wrong = |error| {
            Failure::failed(format!(
                "line {line} is not a snapshot of {what}: {error}; expected one JSON object a line"
            ))
        };
        sender.send_replace(Arc::new(serde_json::from_slice(&text).map_err(wrong)?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use slm_router::Swarm;

    use super::*;

    #[tokio::test]
    async fn lines_become_snapshots() {
        let (sender, receiver) = watch::channel(Arc::new(Swarm::default()));
        let text =
            "{\"generation\":1}\n\n{\"generation\":2,\"models\":[{\"name\":\"a\",\"workers\":[\"http://x\"]}]}\n";
        json_lines("a swarm", text.as_bytes(), &sender).await.expect("snapshots");
        assert_eq!(receiver.borrow().generation, 2);
    }

    #[tokio::test]
    async fn a_wrong_line_is_named() {
        let (sender, _receiver) = watch::channel(Arc::new(Swarm::default()));
        let text = "{\"generation\":1}\n{\"generatoin\":2}\n";
        let Err(Failure::Failed(message)) = json_lines("a swarm", text.as_bytes(), &sender).await else { panic!() };
        assert!(message.starts_with("line 2 is not a snapshot of a swarm: unknown field `generatoin`"), "{message}");
    }
}

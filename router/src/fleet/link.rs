//! The connection to one worker and the state stream over it.

use std::{error::Error as _, sync::Arc, time::Duration};

use slm_proto::v1::{WatchStateRequest, worker_control_client::WorkerControlClient};
use slm_tls::{Identity, Tls};
use tokio::sync::mpsc;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::Update;

/// Bytes of one answer that may be on their way or unread here; a long answer with log-probabilities has some 400 a token.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// As many streams as one router may have open, with all their windows full.
const CONNECTION_WINDOW_BYTES: u32 = 4096 * STREAM_WINDOW_BYTES;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A worker that answers no ping for this long is gone, even if its machine never said so.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that opens when it is first used.
///
/// # Errors
/// Why the address is none, or none to speak to with `tls`.
pub(super) fn channel(url: &str, tls: Option<&Tls>) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| format!("{url:?} is not an address such as http://127.0.0.1:4242: {error}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        // What callers leave unread stays within their own streams: all of them fit into the connection's window.
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    slm_tls::client::channel(&endpoint, Identity::Worker, tls).map_err(|error| error.to_string())
}

/// Tells every state of the worker, and every break of its stream, until the fleet is gone.
pub(super) async fn watch(
    url: Arc<str>,
    link: u64,
    channel: Channel,
    updates: mpsc::Sender<Update>,
    (pause_min, pause_max): (Duration, Duration),
) {
    let mut pause = pause_min;
    loop {
        let status = match stream(&url, link, &channel, &updates, &mut || pause = pause_min).await {
            Ok(()) => Status::unavailable("the worker ended the stream"),
            Err(status) => status,
        };
        let state = Err(words(&status));
        if updates.send(Update { url: Arc::clone(&url), link, state }).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(pause_max);
    }
}

async fn stream(
    url: &Arc<str>,
    link: u64,
    channel: &Channel,
    updates: &mpsc::Sender<Update>,
    alive: &mut impl FnMut(),
) -> Result<(), Status> {
    let mut control = WorkerControlClient::new(channel.clone());
    let mut states = control.watch_state(WatchStateRequest {}).await?.into_inner();
    while let Some(state) = states.message().await? {
        alive();
        let update = Update { url: Arc::clone(url), link, state: Ok(state) };
        if updates.send(update).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The innermost cause says most: "connection refused" rather than "transport error".
fn words(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(inner) = cause.and_then(|cause| cause.source()) {
        cause = Some(inner);
    }
    cause.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

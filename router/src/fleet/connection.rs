//! The connections to one worker: one for requests, one for its state stream.

use std::{sync::Arc, time::Duration};

use slm_residency::state_stream::{self, StateStream};
use slm_tls::{Identity, Tls};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::{Peer, Update};

/// Bytes of one answer that may be on their way or unread here; a long answer with log-probabilities has some 400 a token.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// As many streams as one router may have open, with all their windows full.
const CONNECTION_WINDOW_BYTES: u32 = 4096 * STREAM_WINDOW_BYTES;

/// A connection that opens when it is first used.
///
/// # Errors
/// A malformed address, or one that does not fit `tls`.
pub(super) fn channel(peer: Peer, url: &str, tls: Option<&Tls>) -> Result<Channel, String> {
    let endpoint = state_stream::endpoint(url.to_owned())
        .map_err(|error| format!("{url:?} is not an address such as http://127.0.0.1:4242: {error}"))?
        // What callers leave unread stays within their own streams: all of them fit into the connection's window.
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let identity = match peer {
        Peer::Worker => Identity::Worker,
        Peer::Egress => Identity::Egress,
    };
    slm_tls::client::channel(&endpoint, identity, tls).map_err(|error| error.to_string())
}

/// The states of what a connection leads to.
pub(super) fn states(peer: Peer, channel: Channel, reconnect: (Duration, Duration)) -> StateStream {
    match peer {
        Peer::Worker => StateStream::new(channel, reconnect),
        Peer::Egress => StateStream::of_egress(channel, reconnect),
    }
}

/// Sends every state of the worker, and every break of its stream, until the fleet is gone.
pub(super) async fn watch(url: Arc<str>, connection: u64, mut states: StateStream, updates: mpsc::Sender<Update>) {
    loop {
        let state = states.next().await;
        if updates.send(Update { url: Arc::clone(&url), connection, state }).await.is_err() {
            return;
        }
    }
}

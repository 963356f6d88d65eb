//! What every server of the swarm has in common: a port, and connections whose peers have to do their part in time.
//!
//! - `bind`: a port, or why it cannot be had;
//! - `connections`: what comes to it, plain or after a TLS handshake, at most so many at once;
//! - [`timed`]: deadlines of a peer's first bytes, of its reading, and of the bodies of its requests;
//! - [`http`]: HTTP/1.1 and HTTP/2 over such connections. gRPC servers take the connections themselves.
//!
//! No routes, no callers, no policy.

mod bind;
mod connections;
pub mod http;
pub mod timed;

use std::time::Duration;

pub use self::{
    bind::{ListenError, Listener, bind},
    connections::{Connection, Connections, Socket},
};

/// What the peers of a port may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// Until the first bytes of a connection, and until the headers of each request of HTTP/1.1.
    pub headers: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub stall: Duration,
}

impl Default for Limits {
    /// For ports that a few processes of the swarm or of the cluster use.
    fn default() -> Self {
        Self { connections: 1024, headers: Duration::from_secs(30), stall: Duration::from_secs(60) }
    }
}

//! Listeners whose peers have deadlines: the common part of every server of the swarm.
//!
//! - `bind`: a port, or the reason why it cannot be bound;
//! - `connections`: accepted connections, plain or after a TLS handshake, up to a limit;
//! - [`timed`]: deadlines for a peer's first bytes, for its reading, and for the bodies of its requests;
//! - [`deadline`]: deadlines of gRPC callers;
//! - [`http`]: HTTP/1.1 and HTTP/2 over such connections. gRPC servers take the connections themselves.
//!
//! No routes, no callers, no policy.

mod bind;
mod connections;
pub mod deadline;
pub mod http;
pub mod timed;

use std::time::Duration;

pub use self::{
    bind::{ListenError, Listener, bind},
    connections::{Connection, Connections, Socket},
};

/// Limits on the peers of a port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// Until the first bytes of a connection, and until the headers of each request of HTTP/1.1.
    pub headers: Duration,
    /// Time without reading after which a peer's connection is closed.
    pub stall: Duration,
}

impl Default for Limits {
    /// For ports that a few processes of the swarm or of the cluster use.
    fn default() -> Self {
        Self { connections: 1024, headers: Duration::from_secs(30), stall: Duration::from_secs(60) }
    }
}

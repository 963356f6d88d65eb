//! What an operator of a router may set.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::origins::Origin;

/// Addresses and limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the OpenAI-compatible HTTP endpoint. Port 0: any.
    pub http: SocketAddr,
    /// Of the gRPC endpoint. Port 0: any.
    pub grpc: SocketAddr,
    /// Folder with the certificates of its swarm: workers are spoken to over mutual TLS, and must be workers of the swarm.
    /// Without it they are spoken to in plain text. The router's own endpoints are not concerned.
    pub tls: Option<PathBuf>,
    /// Folder with `tls.crt`, `tls.key` and `tokens.yaml`: both endpoints speak TLS and need a token. Without it they speak
    /// plain text, with everybody.
    pub access: Option<PathBuf>,
    /// Web pages that may call the HTTP endpoint from a browser.
    pub origins: Vec<Origin>,
    /// Where `/healthz`, `/readyz` and `/metrics` are answered too, in plain text and without a token: for those who keep the
    /// router running.
    pub probes: Option<SocketAddr>,
    /// When it counts as ready.
    pub ready_when: ReadyWhen,
    /// How long new requests are still taken after a shutdown began, while nobody is to send any: a load balancer hears
    /// of it late.
    pub withdraw: Duration,
    /// Nothing is unbounded.
    pub limits: Limits,
}

/// When a router counts as ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadyWhen {
    /// Everything that the swarm should be is served.
    #[default]
    Complete,
    /// It knows what the swarm should be. One adapter that cannot be loaded must not take every router of a cluster away.
    Known,
}

/// A limit on everything that callers could make grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one HTTP body or gRPC message.
    pub body_bytes_max: usize,
    /// How long a request waits for a worker that holds its expert.
    pub wait_max: Duration,
    /// Requests that wait so at once; the next is refused.
    pub wait_queue_max: usize,
    /// Of those, the ones that may wait for one expert.
    pub wait_queue_expert_max: usize,
    /// Answers that are open at once, from the request to its last byte; the next request is refused. One caller may have
    /// half of them, and of the waiting ones, too.
    pub answers_max: usize,
    /// Connections of each endpoint at once; further ones wait to be accepted.
    pub connections_max: usize,
    /// From one end of a connection's silence to the headers of its next request: a handshake, a preface, idle time between
    /// requests of HTTP/1.1.
    pub headers: Duration,
    /// From the headers of a request to the end of its body.
    pub body: Duration,
    /// How long a caller may take nothing of what is sent to it before its answer is ended.
    pub reader_idle: Duration,
    /// How long a worker may send nothing of an answer, its time in the worker's queue included.
    pub worker_idle: Duration,
    /// The longest that any request may take; a caller's own deadline may be shorter.
    pub request: Duration,
    /// Entries of a request's `metadata`, and bytes of all of them.
    pub metadata_max: (usize, usize),
    /// Workers that one request is sent to, one after the other, before its first token.
    pub attempts_max: u32,
    /// Workers that one request is sent to that have no room for it, besides.
    pub full_max: u32,
    /// Prompts in one `/v1/completions` request.
    pub prompts_max: usize,
    /// How long running streams may go on after a shutdown began.
    pub drain: Duration,
    /// How long to wait before a worker's broken stream is opened again: at first, and at most.
    pub reconnect: (Duration, Duration),
}

impl Limits {
    /// Those of an endpoint's connections.
    pub(crate) fn connections(&self) -> slm_listen::Limits {
        slm_listen::Limits { connections: self.connections_max, headers: self.headers, stall: self.reader_idle }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            wait_max: Duration::from_secs(10),
            wait_queue_max: 256,
            wait_queue_expert_max: 64,
            answers_max: 4096,
            connections_max: 8192,
            headers: Duration::from_secs(30),
            body: Duration::from_secs(60),
            reader_idle: Duration::from_secs(60),
            worker_idle: Duration::from_secs(300),
            request: Duration::from_secs(3600),
            metadata_max: (64, 64 << 10),
            attempts_max: 3,
            full_max: 16,
            prompts_max: 64,
            drain: Duration::from_secs(30),
            reconnect: (Duration::from_millis(50), Duration::from_secs(1)),
        }
    }
}

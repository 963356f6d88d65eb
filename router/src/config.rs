//! Configuration of a router.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use slm_crds::route::DataPolicy;
use slm_retrieve::secrets::Secrets;

use crate::{origins::Origin, throttle::Rate};

/// Configuration of a router.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the OpenAI-compatible HTTP endpoint. Port 0: any.
    pub http: SocketAddr,
    /// Address of the gRPC endpoint. Port 0: any.
    pub grpc: SocketAddr,
    /// Folder with the certificates of its swarm: workers are spoken to over mutual TLS, and must be workers of the swarm.
    /// Without it they are spoken to in plain text. The router's own endpoints are not concerned.
    pub tls: Option<PathBuf>,
    /// Folder with `tls.crt`, `tls.key` and `tokens.yaml`: both endpoints speak TLS and need a token. Without it they speak
    /// plain text, with everybody.
    pub access: Option<PathBuf>,
    /// Web pages that may call the HTTP endpoint from a browser.
    pub origins: Vec<Origin>,
    /// Whether the page at `/` is served.
    pub page: bool,
    /// Additional address of `/healthz`, `/readyz` and `/metrics`, in plain text and without a token: for kubelets and monitoring.
    pub probes: Option<SocketAddr>,
    /// Condition of readiness.
    pub ready_when: ReadyWhen,
    /// Time for which new requests are still accepted after a shutdown began: load balancers notice late.
    pub withdraw: Duration,
    /// What may leave the swarm at most, whatever routes say.
    pub data_policy: DataPolicy,
    /// What the stores of routes with `retrieve` are authenticated with.
    pub secrets: Secrets,
    /// Limits on callers and workers.
    pub limits: Limits,
}

/// Condition under which a router is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadyWhen {
    /// All of the swarm is served.
    #[default]
    Complete,
    /// The swarm is known. One adapter that cannot be loaded must not make every router of a cluster unready.
    Known,
}

/// Limits on everything that callers can make grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one HTTP body or gRPC message.
    pub body_bytes_max: usize,
    /// Large HTTP bodies, of more than 64 KiB, that wait, are read or are parsed at once; the next one is refused. One caller
    /// may have half of them.
    pub large_bodies_max: usize,
    /// Bytes of large bodies that are read at once, of HTTP until a worker has them, of gRPC until they are decoded; others
    /// wait unread. One caller may have a quarter.
    pub large_bodies_bytes: usize,
    /// Rate of the bytes of large bodies of one caller, on a router with tokens.
    pub large_bodies_rate: Rate,
    /// Longest wait of a request for a worker that has its expert loaded.
    pub wait_max: Duration,
    /// Length of the wait queue; the next request is refused.
    pub wait_queue_max: usize,
    /// Places of the wait queue for one expert.
    pub wait_queue_expert_max: usize,
    /// Open answers, from the request to its last byte; the next request is refused. One caller may have half of them, and half
    /// of the wait queue.
    pub answers_max: usize,
    /// Connections of each endpoint at once; further ones wait to be accepted.
    pub connections_max: usize,
    /// From one end of a connection's silence to the headers of its next request: a handshake, a preface, idle time between
    /// requests of HTTP/1.1.
    pub headers: Duration,
    /// From the headers of a request to the end of its body.
    pub body: Duration,
    /// Time without reading after which a caller's answer is ended.
    pub reader_idle: Duration,
    /// Longest silence of a worker within an answer, its time in the worker's queue included.
    pub worker_idle: Duration,
    /// The longest that any request may take; a caller's own deadline may be shorter.
    pub request: Duration,
    /// Entries of a request's `metadata`, and bytes of all of them.
    pub metadata_max: (usize, usize),
    /// Attempts of one request on workers that fail, before its first token.
    pub attempts_max: u32,
    /// Attempts of one request on workers that are full.
    pub full_max: u32,
    /// Prompts in one `/v1/completions` request.
    pub prompts_max: usize,
    /// Time for running streams to finish after a shutdown began.
    pub drain: Duration,
    /// Pause before a worker's broken state stream is opened again: first and longest.
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
            large_bodies_max: 64,
            large_bodies_bytes: 32 << 20,
            large_bodies_rate: Rate { bytes_per_second: 4 << 20, burst: 16 << 20 },
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

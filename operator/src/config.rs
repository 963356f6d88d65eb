//! How an operator is run.

use std::net::SocketAddr;

/// Settings of an operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace whose objects it turns into workers: one swarm, one namespace.
    pub namespace: String,
    /// Who it is among its replicas; the pod's name.
    pub identity: String,
    /// What the workers' pods are made of.
    pub workers: WorkerPods,
    /// Address of its own probes and metrics.
    pub probes: SocketAddr,
}

/// What the workers' pods are made of.
#[derive(Clone, Debug)]
pub struct WorkerPods {
    /// Image of workers on CPUs.
    pub image: String,
    /// As of a container.
    pub image_pull_policy: Option<String>,
    /// As of a pod.
    pub image_pull_secrets: Vec<String>,
    /// Claim that keeps artifacts and converted models, shared by the workers of a node. Unset: each pod has its own.
    pub cache_claim: Option<String>,
    /// Bytes of artifacts that a cache keeps at most.
    pub artifacts_bytes_max: u64,
    /// Registries and servers, as HOST or HOST:PORT, that are spoken to without TLS.
    pub insecure_hosts: Vec<String>,
    /// Value of RUST_LOG.
    pub log: String,
}

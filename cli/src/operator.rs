//! `slm operator`: the controllers of a cluster.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use slm_launch::HUB_ENDPOINT;
use slm_operator::{
    Certificates, Config,
    config::{WorkerPods, unique_identity},
};
use tokio_util::sync::CancellationToken;

use crate::{args::duration, stdin};
use slm_console::exit::Failure;

/// Turns the SlmModels, LoraAdapters and SwarmRoutes of a namespace into worker pods that serve.
///
/// The Helm chart runs it; a person rarely does. It speaks to the cluster that its pod is in, or to that of KUBECONFIG.
/// Several may run: one holds the Lease slm-operator and works, the others wait. It ends at SIGTERM or SIGINT; what
/// serves, serves on.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  KUBECONFIG=~/.kube/config slm operator --namespace swarm --worker-image slm-swarm:dev"
)]
pub struct OperatorArgs {
    /// The namespace to look after.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    namespace: String,
    /// Its name among its replicas: no two may have the same [default: host name and a random suffix].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,
    /// Image of workers on CPUs.
    #[arg(long, value_name = "IMAGE", env = "SLM_WORKER_IMAGE")]
    worker_image: String,
    /// Pull policy of the worker image [default: that of Kubernetes].
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// A Secret for pulling images; may be given several times.
    #[arg(long = "image-pull-secret", value_name = "NAME")]
    image_pull_secrets: Vec<String>,
    /// A claim that keeps artifacts and converted models for all workers of a node; without it each pod has its own.
    #[arg(long, value_name = "NAME")]
    cache_claim: Option<String>,
    /// Bytes of artifacts that a cache keeps at most.
    #[arg(long, value_name = "BYTES", default_value_t = 50 << 30)]
    artifacts_max: u64,
    /// HOST or HOST:PORT of artifacts that workers may reach without TLS; may be given several times.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    insecure_host: Vec<String>,
    /// Server of hf: sources: huggingface.co, or a mirror of it.
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT", default_value = HUB_ENDPOINT)]
    hub_endpoint: String,
    /// Server of s3: sources [default: Amazon S3].
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Speak to workers over mutual TLS, and keep the certificates for it in Secrets: slm-swarm-ca, and
    /// slm-swarm-ROLE-tls for operator, router, worker and egress.
    #[arg(long)]
    tls: bool,
    /// Lifetime of such a certificate; it is renewed after two thirds.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    tls_lifetime: Duration,
    /// Lifetime of the certificate authority; it is renewed after two thirds.
    #[arg(long, value_name = "TIME", default_value = "3650d", value_parser = duration)]
    tls_authority_lifetime: Duration,
    /// Time for a changed Secret to reach every pod: a new authority is trusted this long before it signs.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    tls_propagation: Duration,
    /// RUST_LOG of the workers.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    worker_log: String,
    /// Address of /healthz, /readyz and /metrics over HTTP.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9091", value_parser = crate::args::address)]
    probes: SocketAddr,
}

/// Runs it.
pub async fn execute(args: OperatorArgs) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    stdin::cancel_at_signal(shutdown.clone())?;
    let certificates = Certificates {
        lifetime: args.tls_lifetime,
        authority_lifetime: args.tls_authority_lifetime,
        propagation: args.tls_propagation,
    };
    certificates.check().map_err(Failure::usage)?;
    let workers = WorkerPods {
        image: args.worker_image,
        image_pull_policy: args.image_pull_policy,
        image_pull_secrets: args.image_pull_secrets,
        cache_claim: args.cache_claim,
        artifacts_bytes_max: args.artifacts_max,
        certificates: args.tls.then_some(certificates),
        insecure_hosts: args.insecure_host,
        hub_endpoint: args.hub_endpoint,
        s3_endpoint: args.s3_endpoint,
        log: args.worker_log,
    };
    let identity = args.identity.unwrap_or_else(unique_identity);
    let config = Config { namespace: args.namespace, identity, workers, probes: args.probes };
    slm_operator::run(config, shutdown).await.map_err(Failure::failed)
}

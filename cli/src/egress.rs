//! `slm egress`: the only process of a swarm that asks models outside.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use slm_egress::{Bound, ClusterSecrets, Config, Externals, Secrets, Sink, kubernetes};
use slm_launch::EgressLine;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{address, duration},
    snapshots, stdin,
};
use slm_console::{exit::Failure, output::say};

/// Asks ExternalModels for routers whose routes lead there.
///
/// `slm up` starts one where a manifest has an ExternalModel, and the chart runs it as a Deployment of its own, the only one whose
/// NetworkPolicy lets traffic out. It reads the ExternalModels from standard input, one JSON object a line, each a whole snapshot; in a
/// cluster it follows those of a namespace (--namespace). Every call is recorded before it is made. See docs/external-models.md.
///
/// Standard output carries one JSON object a line: `{"event":"ready","grpc":"…"}` and `{"event":"failed","message":"…"}`.
#[derive(Args, Debug)]
pub struct EgressArgs {
    /// Address of the gRPC endpoint for routers; port 0: any.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50053", value_parser = address)]
    grpc: SocketAddr,
    /// Folder with ca.crt, tls.crt and tls.key of its swarm, followed: only its routers are admitted, over mutual TLS. Without it everybody
    /// is, in plain text.
    #[arg(long, value_name = "DIR", env = "SLM_TLS_DIR")]
    tls: Option<PathBuf>,
    /// Address where /healthz, /readyz and /metrics are answered.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    probes: Option<SocketAddr>,
    /// Follow the ExternalModels of this namespace of a cluster, and read their Secrets there.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["follow_stdin", "secrets"])]
    namespace: Option<String>,
    /// End when standard input ends; without it, the last snapshot stays.
    #[arg(long)]
    follow_stdin: bool,
    /// File of Secret manifests with the tokens of ExternalModels, followed.
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// File that records are appended to, as JSON lines; without it and --audit-otlp they are lines of standard error.
    #[arg(long, value_name = "FILE", conflicts_with = "audit_otlp")]
    audit: Option<PathBuf>,
    /// Collector that records are sent to, by OTLP over HTTP: http://HOST:4318.
    #[arg(long, value_name = "URL")]
    audit_otlp: Option<String>,
    /// Write the texts of requests and answers into the records, too.
    #[arg(long)]
    audit_content: bool,
    /// Time for running answers to finish after a shutdown was requested.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    drain: Duration,
}

/// Runs it.
pub async fn execute(args: EgressArgs) -> Result<(), Failure> {
    let outcome = serve(args).await;
    if let Err(Failure::Failed(message)) = &outcome {
        say(&EgressLine::Failed { message: message.clone() })?;
    }
    outcome
}

async fn serve(args: EgressArgs) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    stdin::cancel_at_signal(shutdown.clone())?;
    let (sender, externals) = watch::channel(Arc::new(Externals::default()));
    let (bound, addresses) = oneshot::channel();
    let EgressArgs { grpc, tls, probes, audit_content, drain, .. } = args;
    let audit = match (args.audit, args.audit_otlp) {
        (Some(path), _) => Sink::File(path),
        (None, Some(url)) => Sink::Otlp(url),
        (None, None) => Sink::Log,
    };
    let (secrets, source) = match args.namespace {
        None => {
            let secrets = args.secrets.map_or(Secrets::None, Secrets::File);
            (secrets, tokio::spawn(snapshots::read("ExternalModels", sender, args.follow_stdin, shutdown.clone())))
        }
        Some(namespace) => {
            let client = kubernetes::client().await.map_err(Failure::failed)?;
            let secrets = ClusterSecrets { client: client.clone(), namespace: namespace.clone() };
            let end = shutdown.clone();
            let following = tokio::spawn(async move {
                let outcome = kubernetes::follow(client, &namespace, sender).await.map_err(Failure::failed);
                end.cancel();
                outcome
            });
            (Secrets::Cluster(secrets), following)
        }
    };
    let config = Config { grpc, tls, probes, secrets, audit, audit_content, drain };
    tokio::spawn(async move {
        if let Ok(Bound { grpc, probes }) = addresses.await {
            // A parent that does not listen any more has its own way to end us.
            let _ = say(&EgressLine::Ready { grpc, probes });
        }
    });
    slm_egress::run(config, externals, shutdown, bound).await.map_err(Failure::failed)?;
    // A source that broke is why it ended; one that still waits for the next snapshot is not.
    if !source.is_finished() {
        return Ok(());
    }
    source.await.unwrap_or_else(|error| Err(Failure::failed(format!("the source of snapshots: {error}"))))
}

//! `slm router`: the endpoint before the workers.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use slm_crds::route::DataPolicy;
use slm_launch::RouterLine;
use slm_router::{
    Config, Limits, ReadyWhen, Swarm,
    source::kubernetes::{self, Scheme},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{ListenArgs, address, duration},
    snapshots, stdin,
};
use slm_console::{exit::Failure, output::say};

/// Sends every request to the right expert.
///
/// `slm up` starts one; a person rarely does. It reads what the swarm should be from standard input, one JSON object a
/// line, each a whole snapshot that replaces the one before, and learns the rest from the workers' own state streams. In a
/// cluster it follows the objects of a namespace instead (--namespace).
/// It ends at SIGTERM, SIGINT or, with --follow-stdin, the end of its standard input, after the running answers.
///
/// Standard output carries one JSON object a line: `{"event":"ready","http":"…","grpc":"…"}` and
/// `{"event":"failed","message":"…"}`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  echo '{\"generation\":1,\"models\":[{\"name\":\"smollm2\",\"workers\":[\"http://127.0.0.1:4321\"]}]}' | slm router"
)]
pub struct RouterArgs {
    #[command(flatten)]
    listen: ListenArgs,
    /// Time for running answers to finish after a shutdown was requested.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    drain: Duration,
    /// Time for which new requests are still accepted after a shutdown was requested, before the drain: for load
    /// balancers that notice late.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    withdraw: Duration,
    /// End when standard input ends; without it, the last snapshot stays.
    #[arg(long, conflicts_with = "namespace")]
    follow_stdin: bool,
    /// Folder with ca.crt, tls.crt and tls.key of its swarm, followed: workers are spoken to over mutual TLS. Without it they
    /// are spoken to in plain text. The endpoints of the router itself are not concerned.
    #[arg(long, value_name = "DIR", env = "SLM_TLS_DIR")]
    tls: Option<PathBuf>,
    /// Folder with tls.crt, tls.key and tokens.yaml, followed: both endpoints speak TLS, and callers need a token of the list.
    /// Without it they speak plain text with everybody. See docs/access.md.
    #[arg(long, value_name = "DIR", env = "SLM_ACCESS_DIR")]
    access: Option<PathBuf>,
    /// Serve the page at `/`, a chat with every model, adapter and route. It asks for a token where one is needed.
    #[arg(long)]
    page: bool,
    /// Address where /healthz, /readyz and /metrics are answered in plain text and without a token: with --access, the HTTP
    /// endpoint does not tell what is missing, nor metrics.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    probes: Option<SocketAddr>,
    /// What may leave the swarm at most, whatever routes say: LocalOnly, Redacted or AllowExternal.
    #[arg(long, value_name = "POLICY", default_value_t = DataPolicy::AllowExternal)]
    data_policy: DataPolicy,
    /// File of Secret manifests with the passwords and tokens of stores that routes retrieve from, followed. See docs/retrieval.md.
    #[arg(long, value_name = "FILE", env = "SLM_ROUTER_SECRETS")]
    secrets: Option<PathBuf>,
    /// Follow the objects of this namespace of a cluster, not standard input.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
}

/// Runs it.
pub async fn execute(args: RouterArgs) -> Result<(), Failure> {
    let outcome = route(args).await;
    if let Err(Failure::Failed(message)) = &outcome {
        say(&RouterLine::Failed { message: message.clone() })?;
    }
    outcome
}

async fn route(args: RouterArgs) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    stdin::cancel_at_signal(shutdown.clone())?;
    let (sender, swarm) = watch::channel(Arc::new(Swarm::default()));
    let (bound, addresses) = oneshot::channel();
    let limits = Limits { drain: args.drain, ..Limits::default() };
    let ready_when = if args.namespace.is_some() { ReadyWhen::Known } else { ReadyWhen::Complete };
    let ListenArgs { http, grpc, http_allow_origin: origins } = args.listen;
    let scheme = if args.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let RouterArgs { tls, access, page, probes, withdraw, data_policy, secrets, .. } = args;
    let secrets = slm_router::Secrets(secrets);
    let config =
        Config { http, grpc, tls, access, origins, page, probes, ready_when, withdraw, data_policy, secrets, limits };
    tokio::spawn(async move {
        if let Ok(slm_router::Bound { http, grpc, probes }) = addresses.await {
            // A parent that does not listen any more has its own way to end us.
            let _ = say(&RouterLine::Ready { http, grpc, probes });
        }
    });
    let snapshots = match args.namespace {
        None => tokio::spawn(snapshots::read("a swarm", sender, args.follow_stdin, shutdown.clone())),
        Some(namespace) => tokio::spawn(follow_cluster(namespace, scheme, sender, shutdown.clone())),
    };
    slm_router::run(config, swarm, shutdown, bound).await.map_err(Failure::failed)?;
    // A source that broke is why the router ended; one that still waits for the next snapshot is not.
    if !snapshots.is_finished() {
        return Ok(());
    }
    snapshots.await.unwrap_or_else(|error| Err(Failure::failed(format!("the source of snapshots: {error}"))))
}

async fn follow_cluster(
    namespace: String,
    scheme: Scheme,
    sender: watch::Sender<Arc<Swarm>>,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let outcome = kubernetes::follow(&namespace, scheme, sender).await.map_err(Failure::failed);
    shutdown.cancel();
    outcome
}

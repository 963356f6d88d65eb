//! `slm up`: a swarm from a folder of manifests, run by [`slm_local`].

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use slm_launch::{ExecutionProvider, StoreArgs};
use slm_local::{Bound, EgressSettings, Options, RouterSettings, Settings, Stop, WorkerSettings};
use slm_router::Origin;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::args::{CacheArgs, ListenArgs, duration};
use slm_console::{exit::Failure, output, store, store::cache_root, terminal::Terminal};

/// Runs the swarm that a folder of manifests describes, and follows the folder.
///
/// Reads and checks every *.yaml and *.yml of the folder, starts a worker for each SlmModel and one router, loads the
/// adapters, and prints one line, `ready http=… grpc=…`, when every manifest is Ready. An adapter that cannot be used
/// is reported, with the file and the reason, and everything else becomes ready. From then on it follows the folder: a manifest that is edited, added or deleted, or an adapter whose files change, is applied while everything
/// else keeps serving, and `applied generation=N …` on standard error says so. Manifests that are not valid are
/// reported, and the last valid ones stay in force.
///
/// Ctrl-C or SIGTERM drains: nothing new is taken, running answers are finished. A second Ctrl-C ends it at once.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes:\n  \
    0    ended by SIGTERM, after the running answers\n  \
    1    a model cannot be Ready; the message says what and why\n  \
    2    manifests that are not valid, each problem with file and line\n  \
    130  ended by Ctrl-C\n\n\
    Examples:\n  slm up -f examples/quickstart    # `make setup` fetches its model\n  slm up -f swarm --http 0.0.0.0:8000 --grpc 0.0.0.0:50051 --access access    # TLS and tokens: docs/access.md")]
pub struct UpArgs {
    /// The folder of manifests, or a single one.
    #[arg(short, long, value_name = "DIR")]
    filename: PathBuf,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Threads of each worker whose manifest does not say [default: all that this process may use].
    #[arg(long, value_name = "N", env = "SLM_THREADS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// AcceleratorProfile of all workers, whatever the manifests say: cpu, nvidia-cuda or intel-openvino-cpu.
    #[arg(long, value_name = "NAME", value_parser = accelerator)]
    accelerator: Option<ExecutionProvider>,
    /// Folder with tls.crt, tls.key and tokens.yaml, followed: both endpoints speak TLS, and callers need a token of the list.
    /// Without it they speak plain text with everybody. See docs/access.md.
    #[arg(long, value_name = "DIR", env = "SLM_ACCESS_DIR")]
    access: Option<PathBuf>,
    #[command(flatten)]
    external: ExternalArgs,
    /// Do not serve the page at `/` of the HTTP endpoint, a chat with every model, adapter and route.
    #[arg(long)]
    no_page: bool,
    /// Time for running answers to finish after a shutdown was requested.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    drain: Duration,
}

/// Models outside of the swarm.
#[derive(Args, Debug, Default)]
pub struct ExternalArgs {
    /// File of Secret manifests with the tokens of ExternalModels and the passwords of stores, followed. Keep it out of the folder of manifests.
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// File that a record of every call to an ExternalModel is appended to; without it they are lines of standard error.
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Write the texts of requests and answers into the records, too.
    #[arg(long)]
    audit_content: bool,
}

fn accelerator(name: &str) -> Result<ExecutionProvider, String> {
    ExecutionProvider::of_profile(name)
}

/// Runs it.
pub async fn execute(args: UpArgs) -> Result<(), Failure> {
    let stop = Stop::default();
    let interrupted = signals(&stop)?;
    let options = Options {
        manifests: args.filename,
        threads: args.threads,
        accelerator: args.accelerator,
        artifacts: store::config(&args.store)?,
        settings: settings((args.listen, !args.no_page), args.access, args.external, &args.store.cache, args.drain)?,
    };
    let (ready, is_ready) = oneshot::channel();
    let running = tokio::spawn(slm_local::run(options, Arc::new(Terminal::new(false)), stop, ready));
    if let Ok(Bound { http, grpc }) = is_ready.await {
        output::line(&format!("ready http={http} grpc={grpc}"))?;
    }
    running.await.map_err(Failure::failed)??;
    if interrupted.is_cancelled() { Err(Failure::Interrupted) } else { Ok(()) }
}

/// Of the endpoints, and whether the page is served.
fn settings(
    (listen, page): (ListenArgs, bool),
    access: Option<PathBuf>,
    external: ExternalArgs,
    cache: &CacheArgs,
    drain: Duration,
) -> Result<Settings, Failure> {
    let ListenArgs { http, grpc, http_allow_origin: mut origins } = listen;
    // Who serves a page on this machine may call what listens for this machine alone.
    if origins.is_empty() && http.ip().is_loopback() {
        origins = Origin::loopback();
    }
    let ExternalArgs { secrets, audit, audit_content } = external;
    let router = RouterSettings { http, grpc, origins, page, access, secrets: secrets.clone(), drain };
    let egress = EgressSettings { secrets, audit, audit_content, drain };
    Ok(Settings { router, workers: WorkerSettings { cache: cache_root(cache)?, drain }, egress })
}

/// Ctrl-C and SIGTERM drain; the second Ctrl-C kills. Gives what is cancelled at the first Ctrl-C.
fn signals(stop: &Stop) -> Result<CancellationToken, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let interrupted = CancellationToken::new();
    let (stop, told) = (stop.clone(), interrupted.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {
                    if told.is_cancelled() {
                        stop.kill.cancel();
                    }
                    told.cancel();
                }
            }
            stop.drain.cancel();
        }
    });
    Ok(interrupted)
}

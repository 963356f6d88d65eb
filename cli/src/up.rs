//! `slm up`: a swarm from a folder of manifests, run by [`slm_local`].

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use slm_launch::{ExecutionProvider, StoreArgs};
use slm_local::{Bound, EgressSettings, Embedded, Options, RouterSettings, RunError, Settings, Stop, WorkerSettings};
use slm_router::Origin;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{CacheArgs, ListenArgs, cache_root, duration},
    client::ServerArgs,
    exit::Failure,
    output, store_args,
    terminal::Terminal,
};

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
    /// File of Secret manifests with the tokens of ExternalModels, followed. Keep it out of the folder of manifests.
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
        artifacts: store_args::config(&args.store)?,
        settings: settings((args.listen, !args.no_page), args.access, args.external, &args.store.cache, args.drain)?,
    };
    let (ready, is_ready) = oneshot::channel();
    let running = tokio::spawn(slm_local::run(options, Arc::new(Terminal::new(false)), stop, ready));
    if let Ok(Bound { http, grpc }) = is_ready.await {
        output::line(&format!("ready http={http} grpc={grpc}"))?;
    }
    running.await.map_err(Failure::failed)?.map_err(failure)?;
    if interrupted.is_cancelled() { Err(Failure::Interrupted) } else { Ok(()) }
}

/// Starts the swarm of `manifests` on free ports for one command, silently, and waits until it is ready.
///
/// # Errors
/// Manifests that are not valid, or that cannot be Ready.
pub async fn embedded(manifests: &Path, store: &StoreArgs) -> Result<Embedded, Failure> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = ListenArgs { http: any, grpc: any, http_allow_origin: Vec::new() };
    let options = Options {
        manifests: manifests.to_owned(),
        threads: None,
        accelerator: None,
        artifacts: store_args::config(store)?,
        settings: settings((listen, false), None, ExternalArgs::default(), &store.cache, Duration::from_secs(5))?,
    };
    let swarm = Embedded::start(options, Arc::new(Terminal::new(true))).await.map_err(failure)?;
    swarm.ok_or(Failure::AlreadyPrinted)
}

/// The swarm that a command asks: one that runs, or one that is started for it.
#[derive(clap::Args, Debug)]
pub struct SwarmArgs {
    /// Start the swarm of these manifests for this command.
    #[arg(short, long, value_name = "DIR", conflicts_with = "server")]
    filename: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    store: StoreArgs,
}

impl SwarmArgs {
    /// Asks it. What was started for it ends after it.
    ///
    /// # Errors
    /// Manifests that cannot be Ready, no answer at the address, or what `ask` says.
    pub async fn ask(&self, ask: impl AsyncFnOnce(&ServerArgs) -> Result<(), Failure>) -> Result<(), Failure> {
        match &self.filename {
            None => ask(&self.server).await,
            Some(filename) => with_swarm(None, (filename, &self.store), ask).await,
        }
    }
}

/// Asks the swarm that runs, or that of `manifests`, which is started for it and ends after it.
///
/// # Errors
/// Manifests that cannot be Ready, no answer at the address, or what `ask` says.
pub async fn with_swarm(
    running: Option<&ServerArgs>,
    (manifests, store): (&Path, &StoreArgs),
    ask: impl AsyncFnOnce(&ServerArgs) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if let Some(running) = running {
        return ask(running).await;
    }
    let swarm = embedded(manifests, store).await?;
    let answered = ask(&ServerArgs::local(swarm.bound.grpc.to_string())).await;
    let ended = swarm.end().await.map_err(failure);
    answered.and(ended)
}

/// Invalid manifests are wrong usage.
pub fn failure(error: RunError) -> Failure {
    match error {
        RunError::Manifests(problems) => Failure::usage(problems),
        error => Failure::failed(error),
    }
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
    let router = RouterSettings { http, grpc, origins, page, access, drain };
    let ExternalArgs { secrets, audit, audit_content } = external;
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

//! `slm up`: a swarm from a folder of manifests, run by [`slm_local`].

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Args;
use slm_launch::StoreArgs;
use slm_local::{
    Bound, Downloads, Reporter, Resolver, RouterSettings, Settings, SharedResolver, Stop, Supervisor, UpError, Watch,
    WorkerSettings, follow, reconcile::Desired,
};
use slm_router::Origin;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    args::{CacheArgs, ListenArgs, cache_root, duration},
    exit::{self, Failure},
    output, store_args,
    terminal::Terminal,
};

/// Runs the swarm that a folder of manifests describes, and follows the folder.
///
/// Reads and checks every *.yaml and *.yml of the folder, starts a worker for each SlmModel and one router, loads the
/// adapters, and prints one line, `ready http=… grpc=…`, when every manifest is Ready. An adapter that its worker refuses
/// is reported, with the file and the reason, and everything else becomes ready. From then on it follows the folder: a manifest that is edited, added or deleted, or an adapter whose files change, is applied while everything
/// else keeps serving, and `applied generation=N …` on standard error says so. Manifests that are not valid are
/// reported, and what runs keeps running.
///
/// Ctrl-C or SIGTERM drains: nothing new is taken, running answers are finished. A second Ctrl-C ends it at once.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes:\n  \
    0    ended by SIGTERM, after the running answers\n  \
    1    a model cannot be Ready, or a file is missing; the message says what and why\n  \
    2    manifests that are not valid, each problem with file and line\n  \
    130  ended by Ctrl-C\n\n\
    Examples:\n  slm up -f examples/quickstart\n  slm up -f swarm --http 0.0.0.0:8000 --grpc 0.0.0.0:50051")]
pub struct UpArgs {
    /// The folder of manifests, or a single one.
    #[arg(short, long, value_name = "DIR")]
    filename: PathBuf,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Threads of each worker whose manifest does not say [default: all that this process may use].
    #[arg(long, value_name = "N", env = "SLM_THREADS")]
    threads: Option<u32>,
    /// Folder with tls.crt, tls.key and tokens.yaml, followed: both endpoints speak TLS, and callers need a token of the list.
    /// Without it they speak plain text with everybody. See docs/access.md.
    #[arg(long, value_name = "DIR", env = "SLM_ACCESS_DIR")]
    access: Option<PathBuf>,
    /// How long running answers may go on after the end was asked for.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    drain: Duration,
}

/// Runs it.
pub async fn execute(args: UpArgs) -> Result<(), Failure> {
    let stop = Stop::default();
    let interrupted = signals(&stop)?;
    let reporter: Arc<dyn Reporter> = Arc::new(Terminal::new(false));
    let resolver = resolver(args.threads, &args.store, &reporter)?;
    // Before the first reading, so that no change falls between the two.
    let mut watch = Watch::start(&args.filename).map_err(Failure::failed)?;
    let desired = first(&args.filename, &resolver).await?;
    watch.include(&desired);
    let (changes, next) = mpsc::channel(1);
    let following = follow(args.filename.clone(), watch, resolver, Arc::clone(&reporter), changes);
    let following = AbortOnDropHandle::new(tokio::spawn(following));

    let settings = settings(args.listen, args.access, &args.store.cache, args.drain)?;
    let (ready, is_ready) = oneshot::channel();
    let supervisor = Supervisor::new(settings, desired, reporter, ready);
    let running = tokio::spawn(supervisor.run(next, stop.clone()));
    if let Ok(Bound { http, grpc }) = is_ready.await {
        output::line(&format!("ready http={http} grpc={grpc}"))?;
    }
    followed(running, following, &stop).await?;
    if interrupted.is_cancelled() { Err(Failure::Interrupted) } else { Ok(()) }
}

/// Waits for the end of the swarm. A swarm whose manifests nobody follows any more drains and fails.
async fn followed(
    mut running: JoinHandle<Result<(), UpError>>,
    following: AbortOnDropHandle<()>,
    stop: &Stop,
) -> Result<(), Failure> {
    let followed = tokio::select! {
        outcome = &mut running => return whole(outcome),
        followed = following => followed,
    };
    if followed.is_err() {
        stop.drain.cancel();
    }
    whole(running.await)?;
    followed.map_err(|error| Failure::failed(format!("the manifests are not followed any more: {error}")))
}

/// A swarm that was started for one command.
#[derive(Debug)]
pub struct Embedded {
    /// Where it listens.
    pub bound: Bound,
    stop: Stop,
    running: JoinHandle<Result<(), UpError>>,
}

impl Embedded {
    /// Starts the swarm of `filename` on free ports, without a word, and waits until it is ready.
    ///
    /// # Errors
    /// What is wrong with the manifests, or what cannot be Ready.
    pub async fn start(filename: &Path, store: &StoreArgs) -> Result<Self, Failure> {
        let reporter: Arc<dyn Reporter> = Arc::new(Terminal::new(true));
        let resolver = resolver(None, store, &reporter)?;
        let desired = first(filename, &resolver).await?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listen = ListenArgs { http: any, grpc: any, http_allow_origin: Vec::new() };
        let settings = settings(listen, None, &store.cache, Duration::from_secs(5))?;
        let (ready, is_ready) = oneshot::channel();
        let stop = Stop::default();
        let supervisor = Supervisor::new(settings, desired, reporter, ready);
        let (_changes, next) = mpsc::channel(1);
        let running = tokio::spawn(supervisor.run(next, stop.clone()));
        match is_ready.await {
            Ok(bound) => Ok(Self { bound, stop, running }),
            Err(_) => Err(whole(running.await).err().unwrap_or(Failure::Said)),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it had failed by itself.
    pub async fn end(self) -> Result<(), Failure> {
        self.stop.drain.cancel();
        whole(self.running.await)
    }
}

fn resolver(threads: Option<u32>, store: &StoreArgs, reporter: &Arc<dyn Reporter>) -> Result<SharedResolver, Failure> {
    let downloads = Downloads::new(store_args::config(store)?, Arc::clone(reporter));
    Ok(Arc::new(Mutex::new(Resolver::new(threads, downloads))))
}

/// Reads the manifests for the first time: here everything has to be right.
async fn first(filename: &Path, resolver: &SharedResolver) -> Result<Desired, Failure> {
    let (path, resolver) = (filename.to_owned(), Arc::clone(resolver));
    let reading = move || slm_local::read(&path, &resolver).map_err(Failure::usage);
    let (desired, problems) = exit::blocking(reading).await?;
    if problems.is_empty() { Ok(desired) } else { Err(Failure::Failed(problems.join("\n"))) }
}

fn settings(
    listen: ListenArgs,
    access: Option<PathBuf>,
    cache: &CacheArgs,
    drain: Duration,
) -> Result<Settings, Failure> {
    let ListenArgs { http, grpc, http_allow_origin: mut origins } = listen;
    // Who serves a page on this machine may call what listens for this machine alone.
    if origins.is_empty() && http.ip().is_loopback() {
        origins = Origin::loopback();
    }
    let router = RouterSettings { http, grpc, origins, access, drain };
    Ok(Settings { router, workers: WorkerSettings { cache: cache_root(cache)?, drain } })
}

fn whole(outcome: Result<Result<(), UpError>, JoinError>) -> Result<(), Failure> {
    outcome.map_err(Failure::failed)?.map_err(Failure::failed)
}

/// Ctrl-C and SIGTERM drain; the second Ctrl-C kills. Gives what is cancelled at the first Ctrl-C.
fn signals(stop: &Stop) -> Result<tokio_util::sync::CancellationToken, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let interrupted = tokio_util::sync::CancellationToken::new();
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

//! The entry of this crate: a swarm from its first reading of the manifests to its end.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use slm_artifacts::StoreConfig;
use slm_crds::manifest;
use slm_launch::ExecutionProvider;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle, spawn_blocking},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    downloads::Downloads,
    follow::{Watch, WatchError, follow, read},
    reconcile::Desired,
    report::Reporter,
    resolve::{Resolver, SharedResolver, lock},
    supervisor::{Bound, Settings, Stop, Supervisor, UpError},
};

/// A swarm to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of manifests, or a single one.
    pub manifests: PathBuf,
    /// Threads of a worker whose manifest does not say; unset: all that the process may use.
    pub threads: Option<u32>,
    /// Execution provider of all workers; unset: what manifests say.
    pub accelerator: Option<ExecutionProvider>,
    /// The cache of downloads.
    pub artifacts: StoreConfig,
    /// Settings of the processes.
    pub settings: Settings,
}

/// The reason why a swarm did not come up, or ended by itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// The folder cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Manifests that are not valid.
    #[error(transparent)]
    Manifests(#[from] manifest::Problems),
    /// Artifacts that cannot be used, among them one of a model; one line each.
    #[error("{}", .0.join("\n"))]
    Artifacts(Vec<String>),
    /// A process failed, or did not become ready.
    #[error(transparent)]
    Swarm(#[from] UpError),
    /// A task of the swarm panicked.
    #[error(transparent)]
    Task(#[from] JoinError),
    /// The task that follows the manifests panicked; the swarm was drained.
    #[error("the manifests are no longer followed, because a task failed: {0}; start `slm up` again")]
    NotFollowed(JoinError),
}

/// Runs the swarm and follows its manifests until `stop`. `ready` is sent when every manifest is Ready for the first
/// time, and dropped when that never happens.
///
/// # Errors
/// At the first reading manifests and models have to be right; later, what is not is reported and the swarm runs on.
pub async fn run(
    options: Options,
    reporter: Arc<dyn Reporter>,
    stop: Stop,
    ready: oneshot::Sender<Bound>,
) -> Result<(), RunError> {
    let Options { manifests, threads, accelerator, artifacts, settings } = options;
    let resolver = resolver(threads, accelerator, artifacts, &reporter);
    // Before the first reading, so that no change falls between the two.
    let mut watch = Watch::start(&manifests)?;
    let desired = tokio::select! {
        desired = first_reading(&manifests, &resolver, &reporter, WaitFor::Models) => desired?,
        () = stop.drain.cancelled() => return Ok(()),
        () = stop.kill.cancelled() => return Ok(()),
    };
    watch.include(&desired);
    let (changes, next) = mpsc::channel(1);
    let following = follow(manifests, watch, resolver, Arc::clone(&reporter), desired.clone(), changes);
    let following = AbortOnDropHandle::new(tokio::spawn(following));
    let supervisor = Supervisor::new(settings, desired, reporter, ready);
    let running = tokio::spawn(supervisor.run(next, stop.clone()));
    until_end(running, following, &stop).await
}

/// Waits for the end of the swarm. A swarm whose manifests are no longer followed drains and fails.
async fn until_end(
    mut running: JoinHandle<Result<(), UpError>>,
    following: AbortOnDropHandle<()>,
    stop: &Stop,
) -> Result<(), RunError> {
    let followed = tokio::select! {
        outcome = &mut running => return Ok(outcome??),
        followed = following => followed,
    };
    if followed.is_err() {
        stop.drain.cancel();
    }
    running.await??;
    followed.map_err(RunError::NotFollowed)
}

/// A swarm whose manifests are read once: for a single command.
#[derive(Debug)]
pub struct Embedded {
    /// The addresses of its endpoints.
    pub bound: Bound,
    stop: Stop,
    running: JoinHandle<Result<(), UpError>>,
}

impl Embedded {
    /// Starts the swarm and waits until it is ready. None when it ended by itself without an error.
    ///
    /// # Errors
    /// Manifests that are not valid, or that cannot be Ready.
    pub async fn start(options: Options, reporter: Arc<dyn Reporter>) -> Result<Option<Self>, RunError> {
        let Options { manifests, threads, accelerator, artifacts, settings } = options;
        let resolver = resolver(threads, accelerator, artifacts, &reporter);
        let desired = first_reading(&manifests, &resolver, &reporter, WaitFor::All).await?;
        let (ready, is_ready) = oneshot::channel();
        let stop = Stop::default();
        let supervisor = Supervisor::new(settings, desired, reporter, ready);
        let (_changes, next) = mpsc::channel(1);
        let running = tokio::spawn(supervisor.run(next, stop.clone()));
        if let Ok(bound) = is_ready.await {
            return Ok(Some(Self { bound, stop, running }));
        }
        running.await??;
        Ok(None)
    }

    /// Drains the swarm and waits for its end.
    ///
    /// # Errors
    /// A failure of the swarm before that.
    pub async fn end(self) -> Result<(), RunError> {
        self.stop.drain.cancel();
        Ok(self.running.await??)
    }
}

fn resolver(
    threads: Option<u32>,
    accelerator: Option<ExecutionProvider>,
    artifacts: StoreConfig,
    reporter: &Arc<dyn Reporter>,
) -> SharedResolver {
    let downloads = Downloads::new(artifacts, Arc::clone(reporter));
    Arc::new(Mutex::new(Resolver::new(threads, accelerator, downloads)))
}

/// Artifacts that the first reading waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitFor {
    /// Those of models; adapters may come later.
    Models,
    /// All: nothing is read again.
    All,
}

/// An adapter that cannot be used is reported, as it is later. A model that cannot be used ends it: what its adapters and
/// routes lead to would not be there.
async fn first_reading(
    manifests: &Path,
    resolver: &SharedResolver,
    reporter: &Arc<dyn Reporter>,
    wait: WaitFor,
) -> Result<Desired, RunError> {
    let news = lock(resolver).news();
    loop {
        let (path, resolver) = (manifests.to_owned(), Arc::clone(resolver));
        let (desired, problems) = spawn_blocking(move || read(&path, &resolver)).await??;
        if !problems.of_models.is_empty() {
            return Err(RunError::Artifacts(problems.all()));
        }
        if problems.fetching_models.is_empty() && (wait == WaitFor::Models || !desired.fetching) {
            for problem in problems.of_adapters {
                reporter.problem(&format!("{problem}; everything else is served"));
            }
            return Ok(desired);
        }
        news.notified().await;
    }
}

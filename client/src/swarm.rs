//! The swarm that a command asks: one that runs, or one that is started for it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use slm_console::{
    exit::Failure,
    store::{self, cache_root},
    terminal::Terminal,
};
use slm_launch::StoreArgs;
use slm_local::{EgressSettings, Embedded, Options, RouterSettings, Settings, WorkerSettings};
use slm_router::Origin;

use crate::connection::ServerArgs;

/// Starts the swarm of `manifests` on free ports for one command, silently, and waits until it is ready.
///
/// # Errors
/// Manifests that are not valid, or that cannot be Ready.
async fn embedded(manifests: &Path, store: &StoreArgs) -> Result<Embedded, Failure> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let drain = Duration::from_secs(5);
    let router = RouterSettings {
        http: any,
        grpc: any,
        origins: Origin::loopback(),
        page: false,
        access: None,
        secrets: None,
        drain,
    };
    let egress = EgressSettings { secrets: None, audit: None, audit_content: false, drain };
    let workers = WorkerSettings { cache: cache_root(&store.cache)?, drain };
    let options = Options {
        manifests: manifests.to_owned(),
        threads: None,
        accelerator: None,
        artifacts: store::config(store)?,
        settings: Settings { router, workers, egress },
    };
    let swarm = Embedded::start(options, Arc::new(Terminal::new(true))).await?;
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
    let ended = swarm.end().await.map_err(Failure::from);
    answered.and(ended)
}

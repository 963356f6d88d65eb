//! `slm worker`: one base model and its adapters, over gRPC.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use clap::Args;
use slm_artifacts::{Progress, Source};
use slm_launch::{Speculative, WorkerLaunch, WorkerLine};
use slm_worker::{
    WorkerConfig, WorkerEvent,
    model::{ModelOptions, Opening},
};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{precision, provider, task},
    stdin,
};
use slm_console::{exit::Failure, output::say, store, store::cache_root};

/// Schemes of a source.
const SCHEMES: [&str; 5] = ["file:", "oci:", "https:", "http:", "pvc:"];

/// Serves one base model and its adapters over gRPC.
///
/// `slm up` starts one for every SlmModel; a person rarely does. It converts the model when the cache does not have it
/// yet, loads it, and takes requests and adapters until it is told to end: by SIGTERM, SIGINT or, with --follow-stdin,
/// the end of its standard input. Then it finishes what runs.
///
/// Standard output carries one JSON object a line: `{"event":"converting","done":3,"total":30}`,
/// `{"event":"loading"}`, `{"event":"ready","address":"127.0.0.1:4321"}`, `{"event":"failed","message":"…"}`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  slm worker --name smollm2 --model SmolLM2-135M-Instruct.Q4_1.gguf --listen 127.0.0.1:4321"
)]
pub struct WorkerArgs {
    #[command(flatten)]
    launch: WorkerLaunch,
}

/// Runs it.
pub async fn execute(args: WorkerArgs) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    stdin::cancel_at_signal(shutdown.clone())?;
    if args.launch.follow_stdin {
        stdin::cancel_at_end(shutdown.clone());
    }
    let config = config(args.launch)?;
    let fetching = Fetching::default();
    let told = slm_worker::run(config, shutdown, move |event| {
        let line = match event {
            WorkerEvent::Opening(Opening::Fetching(progress)) => {
                if !fetching.is_news(&progress) {
                    return;
                }
                WorkerLine::Fetching { done: progress.done, total: progress.total }
            }
            WorkerEvent::Opening(Opening::Converting(done, total)) => WorkerLine::Converting { done, total },
            WorkerEvent::Opening(Opening::Loading) => WorkerLine::Loading,
            WorkerEvent::Ready { address } => WorkerLine::Ready { address },
        };
        // A parent that does not listen any more has its own way to end us.
        let _ = say(&line);
    });
    let Err(error) = told.await else { return Ok(()) };
    say(&WorkerLine::Failed { message: error.to_string() })?;
    Err(Failure::failed(error))
}

/// Thins out progress: a line for each hundredth is plenty.
#[derive(Default)]
struct Fetching {
    told: AtomicU64,
}

impl Fetching {
    fn is_news(&self, progress: &Progress) -> bool {
        let step = progress.total.map_or(64 << 20, |total| total / 100).max(1);
        // One more, so that the first line is news.
        let now = progress.done / step + 1;
        self.told.swap(now, Ordering::Relaxed) != now
    }
}

/// A path is a source too.
fn uri(model: &str) -> String {
    if SCHEMES.iter().any(|scheme| model.starts_with(scheme)) { model.to_owned() } else { format!("file:{model}") }
}

fn config(launch: WorkerLaunch) -> Result<WorkerConfig, Failure> {
    let cache = cache_root(&launch.store.cache)?;
    let artifacts = store::config(&launch.store)?;
    let credentials = launch.credentials.as_deref().map(slm_worker::mounted_credentials).transpose();
    let credentials = credentials.map_err(Failure::usage)?.flatten();
    let source = Source { uri: uri(&launch.model), digest: launch.digest, credentials };
    // What a u32 counts, this machine can count.
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let model = ModelOptions {
        name: launch.name,
        path: PathBuf::new(),
        digest: None,
        provider: provider(launch.execution_provider),
        task: task(launch.task),
        precision: precision(launch.precision),
        context_length: launch.context_length.map(size),
        sequences_max: size(launch.max_sequences),
        queue_max: size(launch.queue),
        unread_max: launch.unread.map(size),
        kv_cache_bytes: launch.kv_cache_bytes,
        prefix_cache: launch.prefix_cache,
        prompt_lookup: launch.speculative == Speculative::PromptLookup,
        threads: launch.threads.map(size),
        adapter_slots: size(launch.adapter_slots),
        adapter_host_bytes: launch.adapter_host_cache_bytes,
        adapter_rank_max: size(launch.adapter_max_rank),
        cache: cache.join("converted"),
    };
    let (listen, tls, probes) = (launch.listen, launch.tls, launch.probes);
    Ok(WorkerConfig {
        model,
        source,
        artifacts,
        listen,
        tls,
        probes,
        drain_timeout: launch.drain,
        read_timeout: launch.read_timeout,
        load_timeout: launch.load_timeout,
    })
}

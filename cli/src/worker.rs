//! `slm worker`: one base model and its adapters, over gRPC.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use clap::{ArgAction, Args, builder::RangedU64ValueParser};
use slm_artifacts::{Progress, Source};
use slm_worker::{
    WorkerConfig, WorkerEvent,
    model::{ModelOptions, Opening},
};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Precision, address, duration},
    child_line::{WorkerLine, say},
    exit::Failure,
    stdin,
    store_args::StoreArgs,
};

/// What a source begins with.
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
    /// Name that requests use for the model.
    #[arg(long)]
    name: String,
    /// A GGUF file, or a Hugging Face folder with config.json and safetensors; or where to fetch one, such as
    /// oci://REGISTRY/REPOSITORY:TAG, https://… or pvc://CLAIM/PATH.
    #[arg(long, value_name = "PATH_OR_URI")]
    model: String,
    /// Refuse a model that has another digest than this.
    #[arg(long, value_name = "sha256:…")]
    digest: Option<String>,
    /// Folder with what the registry or server of the model asks for, as a Secret is mounted: .dockerconfigjson, or token,
    /// or username and password.
    #[arg(long, value_name = "DIR")]
    credentials: Option<PathBuf>,
    /// Of the weights in memory.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    precision: Precision,
    /// Longest sequence in tokens, prompt and answer together [default: the model's own, at most 4096].
    #[arg(long, value_name = "TOKENS")]
    context_length: Option<usize>,
    /// Sequences that are generated at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    max_sequences: usize,
    /// Bytes of keys and values at most [default: room for --max-sequences of --context-length, but no more than half of the
    /// memory that this process may use].
    #[arg(long, value_name = "BYTES")]
    kv_cache_bytes: Option<u64>,
    /// Keep the keys and values of prompts for later requests that begin alike.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    prefix_cache: bool,
    /// Where tokens come from that are tried before their turn.
    #[arg(long, value_name = "METHOD", value_parser = ["PromptLookup", "Off"], default_value = "PromptLookup", ignore_case = true)]
    speculative: String,
    /// Requests that may wait besides; the next is refused.
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue: usize,
    /// Threads that compute [default: all that this process may use].
    #[arg(long, value_name = "N", env = "SLM_THREADS")]
    threads: Option<usize>,
    /// Adapters that may be loaded.
    #[arg(long, value_name = "N", default_value_t = 16)]
    adapter_slots: usize,
    /// Largest rank of an adapter.
    #[arg(long, value_name = "RANK", default_value_t = 64)]
    adapter_max_rank: usize,
    /// Who computes inside ONNX Runtime.
    #[arg(long, value_name = "PROVIDER", value_parser = ["Cpu"], default_value = "Cpu", ignore_case = true)]
    execution_provider: String,
    #[command(flatten)]
    store: StoreArgs,
    /// Address of the gRPC endpoint; port 0: any.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = address)]
    listen: SocketAddr,
    /// Folder with ca.crt, tls.crt and tls.key of its swarm, followed: only operator and routers of the swarm get in. Without
    /// it the gRPC endpoint is plain and open.
    #[arg(long, value_name = "DIR", env = "SLM_TLS_DIR")]
    tls: Option<PathBuf>,
    /// Address of /healthz, /readyz and /metrics over HTTP; none without it.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    probes: Option<SocketAddr>,
    /// How long running answers may go on after the end was asked for.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    drain: Duration,
    /// End when standard input ends.
    #[arg(long)]
    follow_stdin: bool,
}

/// Runs it.
pub async fn execute(args: WorkerArgs) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    stdin::cancel_at_signal(shutdown.clone())?;
    if args.follow_stdin {
        stdin::cancel_at_end(shutdown.clone());
    }
    let config = args.config()?;
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

impl WorkerArgs {
    fn config(self) -> Result<WorkerConfig, Failure> {
        let cache = self.store.cache.root()?;
        let artifacts = self.store.config()?;
        let credentials = self.credentials.as_deref().map(slm_worker::mounted_credentials).transpose();
        let credentials = credentials.map_err(Failure::usage)?.flatten();
        let source = Source { uri: uri(&self.model), digest: self.digest, credentials };
        let model = ModelOptions {
            name: self.name,
            path: PathBuf::new(),
            digest: None,
            precision: self.precision.into(),
            context_length: self.context_length,
            sequences_max: self.max_sequences,
            queue_max: self.queue,
            kv_cache_bytes: self.kv_cache_bytes,
            prefix_cache: self.prefix_cache,
            prompt_lookup: self.speculative != "Off",
            threads: self.threads,
            adapter_slots: self.adapter_slots,
            adapter_rank_max: self.adapter_max_rank,
            cache: cache.join("converted"),
        };
        let (listen, tls, probes) = (self.listen, self.tls, self.probes);
        Ok(WorkerConfig { model, source, artifacts, listen, tls, probes, drain_timeout: self.drain })
    }
}

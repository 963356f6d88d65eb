//! `slm worker`: one base model and its adapters, over gRPC.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use slm_worker::{
    WorkerConfig, WorkerEvent,
    model::{ModelOptions, Opening},
};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{CacheArgs, Precision, duration},
    child_line::{WorkerLine, say},
    exit::Failure,
    stdin,
};

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
    /// A GGUF file, or a Hugging Face folder with config.json and safetensors.
    #[arg(long, value_name = "FILE_OR_DIR")]
    model: PathBuf,
    /// Refuse a model that has another digest than this.
    #[arg(long, value_name = "sha256:…")]
    digest: Option<String>,
    /// Of the weights in memory.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    precision: Precision,
    /// Longest sequence in tokens, prompt and answer together [default: the model's own, at most 4096].
    #[arg(long, value_name = "TOKENS")]
    context_length: Option<usize>,
    /// Sequences that are generated at once.
    #[arg(long, value_name = "N", default_value_t = 8)]
    max_sequences: usize,
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
    #[command(flatten)]
    cache: CacheArgs,
    /// Address of the gRPC endpoint; port 0: any.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
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
    let told = slm_worker::run(config, shutdown, |event| {
        let line = match event {
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

impl WorkerArgs {
    fn config(self) -> Result<WorkerConfig, Failure> {
        let cache = self.cache.root()?.join("converted");
        let model = ModelOptions {
            name: self.name,
            path: self.model,
            digest: self.digest,
            precision: self.precision.into(),
            context_length: self.context_length,
            sequences_max: self.max_sequences,
            queue_max: self.queue,
            threads: self.threads,
            adapter_slots: self.adapter_slots,
            adapter_rank_max: self.adapter_max_rank,
            cache,
        };
        Ok(WorkerConfig { model, listen: self.listen, drain_timeout: self.drain })
    }
}

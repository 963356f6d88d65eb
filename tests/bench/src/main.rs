//! `make bench`: tokens a second through the HTTP endpoint of a running swarm, beside what the bare ONNX Runtime step
//! gives on the same graph at the same batch, and beside llama.cpp's server with the same model, in the same run.
//!
//! What is compared takes turns, so that a machine whose speed drifts drifts for all. Figures are medians with their
//! range.

mod adapters;
mod backend;
mod gguf_file;
mod lora_gguf;
mod model;
mod prompts;
mod random_model;

mod bare;
mod direct;
mod llama;
mod served;

mod load;

mod agree;
mod bandwidth;
mod compare;
mod constrained;
mod cost;
mod reuse;
mod routing;
mod step;
mod swap;

mod plot;
mod report;
mod run;
mod select;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::json;

use compare::Opponent;
use model::{Model, Size};
use run::Run;
use select::Selection;

/// Tokens of each prompt and of each answer in the decoding rows.
const PROMPT: usize = 128;
const ANSWER: usize = 128;
/// Tokens of the prompt whose first token is timed.
const LONG_PROMPT: usize = 512;
/// Tokens that a sequence may have.
const CONTEXT: usize = 1024;
/// Streams of the batched rows beside the bare step, and so adapters that are made for it.
const STREAMS: usize = 8;
const RANK: usize = 16;

/// Speed of a swarm beside the bare ONNX Runtime step and beside llama-server, on this machine.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The `slm` binary to measure.
    #[arg(long, default_value = "target/release/slm")]
    slm: PathBuf,
    /// The model to measure.
    #[arg(long, value_enum, default_value = "smollm2-135m")]
    model: Size,
    /// Times that each figure is taken.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// llama.cpp's server to compare with; `scripts/llama-server` builds it.
    #[arg(long)]
    llama_server: Option<PathBuf>,
    /// The file that it serves [default: SmolLM2 as `scripts/llama-server` makes it, other models as we serve them].
    #[arg(long)]
    llama_model: Option<PathBuf>,
    /// Rows to measure, by name: `step/*`, `adapter`, `reuse`, `swap`, `constrained`, `llama/base-8`; all when not given.
    #[arg(long)]
    only: Vec<String>,
    /// Where every figure is written.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the picture is written.
    #[arg(long, default_value = "target/bench.png")]
    plot: PathBuf,
}

/// Other measurements.
#[derive(Debug, Subcommand)]
enum Command {
    Backend(backend::BackendArgs),
    Routing(routing::RoutingArgs),
}

/// Which adapters the streams of a row use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    Base,
    Same,
    Distinct,
}

impl Mix {
    /// Adapter of stream `stream`.
    pub(crate) fn adapter(self, stream: usize) -> Option<usize> {
        match self {
            Self::Base => None,
            Self::Same => Some(0),
            Self::Distinct => Some(stream),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Backend(arguments)) => return backend::measure(arguments),
        Some(Command::Routing(arguments)) => return routing::measure(arguments).await,
        None => {}
    }
    // Found out now, not after half an hour.
    for file in [Some(&arguments.plot), arguments.json.as_ref()].into_iter().flatten() {
        let folder = file.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let run = Run {
        slm: arguments.slm,
        repeat: arguments.repeat,
        only: Selection(arguments.only),
        model: Model::open(arguments.model)?,
        dir: tempfile::tempdir()?,
    };
    println!("{:?}, {}\n", run.model.size, table::machine());
    let mut raw = json!({"machine": table::machine(), "model": format!("{:?}", run.model.size)});
    let tables = [
        ("step", step::measure(&run).await?),
        ("adapter", cost::measure(&run).await?),
        ("reuse", reuse::measure(&run).await?),
        ("constrained", constrained::measure(&run).await?),
    ];
    for (name, table) in tables {
        if let Some(table) = table {
            println!("{}", table.markdown());
            raw[name] = table.json();
        }
    }
    if let Some(swaps) = swap::measure(&run).await? {
        println!("{}", swaps.markdown());
        raw["swap"] = swaps.json();
    }
    match arguments.llama_server {
        Some(program) => {
            let model = run.model.for_llama(arguments.llama_model)?;
            if let Some(all) = compare::measure(&run, &Opponent { program, model }).await? {
                report::report(&all, &mut raw, &arguments.plot)?;
            }
        }
        None => {
            println!("No comparison with llama-server: --llama-server PATH names one, scripts/llama-server builds it.")
        }
    }
    if let Some(path) = arguments.json {
        fs::write(&path, serde_json::to_vec_pretty(&raw)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

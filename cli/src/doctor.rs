//! `slm doctor`: what this machine can run, what is missing and how to get it.

use std::path::PathBuf;

use clap::Args;
use slm_local::doctor::{Check, Verdict, checks, model_checks};

use crate::args::{CacheArgs, ListenArgs};
use slm_console::{
    exit::{self, Failure},
    output,
    store::cache_root,
    style::{self, styled},
};

/// Says what this machine can run, what is missing and how to get it.
///
/// Looks at the processor, the cores and the memory that this process may use, ONNX Runtime, the cache folder, the
/// quickstart's base model and the ports of `slm up`. With --model, at a model instead: whether a worker would run it, its
/// memory, and the speed that it can have; nothing is loaded. Ends with exit code 1 when something is missing that is
/// needed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm doctor\n  slm doctor --json\n  slm doctor --model ./Qwen3-0.6B")]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Folder or GGUF file of a model to look at.
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Runs it.
pub async fn execute(args: DoctorArgs) -> Result<(), Failure> {
    exit::blocking(move || {
        let checks = match &args.model {
            Some(path) => model_checks(path),
            None => checks(&cache_root(&args.cache)?, args.listen.http, args.listen.grpc),
        };
        let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        if args.json {
            output::json(&serde_json::json!({ "verdict": worst, "checks": checks }))?;
        } else {
            checks.iter().try_for_each(print)?;
        }
        if worst == Verdict::Fail { Err(Failure::AlreadyPrinted) } else { Ok(()) }
    })
    .await
}

fn print(check: &Check) -> Result<(), Failure> {
    let verdict = match check.verdict {
        Verdict::Ok => styled(style::GOOD, "ok  "),
        Verdict::Warn => styled(style::WARN, "warn"),
        Verdict::Fail => styled(style::BAD, "fail"),
    };
    output::line(&format!("{verdict}  {:<18} {}", check.name, check.found))?;
    if check.remedy.is_empty() { Ok(()) } else { output::line(&format!("      {:<18} {}", "", check.remedy)) }
}

//! `slm doctor`: what this machine can run, what is missing and how to get it.

use clap::Args;
use slm_local::doctor::{Check, Verdict, checks};

use crate::{
    args::{CacheArgs, ListenArgs, cache_root},
    exit::{self, Failure},
    output,
    style::{self, styled},
};

/// Says what this machine can run, what is missing and how to get it.
///
/// Looks at the processor, the cores and the memory that this process may use, ONNX Runtime, the cache folder, the
/// quickstart's base model and the ports of `slm up`. Ends with exit code 1 when something is missing that is needed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm doctor\n  slm doctor --json")]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Runs it.
pub async fn execute(args: DoctorArgs) -> Result<(), Failure> {
    exit::blocking(move || {
        let checks = checks(&cache_root(&args.cache)?, args.listen.http, args.listen.grpc);
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

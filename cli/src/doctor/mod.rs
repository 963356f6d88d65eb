//! `slm doctor`: what this machine can run, what is missing and how to get it.

mod machine;
mod place;
mod runtime;

use clap::Args;
use serde::Serialize;

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

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, found: found.into(), remedy: remedy.into() }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, found: found.into(), remedy: remedy.into() }
    }
}

/// Runs it.
pub async fn execute(args: DoctorArgs) -> Result<(), Failure> {
    exit::blocking(move || {
        let checks = args.checks()?;
        let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        if args.json {
            output::json(&serde_json::json!({ "verdict": worst, "checks": checks }))?;
        } else {
            checks.iter().try_for_each(print)?;
        }
        if worst == Verdict::Fail { Err(Failure::Said) } else { Ok(()) }
    })
    .await
}

impl DoctorArgs {
    fn checks(&self) -> Result<Vec<Check>, Failure> {
        let cache = cache_root(&self.cache)?;
        Ok(vec![
            machine::processor(),
            machine::instructions(),
            machine::cores(),
            machine::memory(),
            runtime::onnx_runtime(),
            place::cache(&cache),
            place::quickstart_model(&cache),
            place::port("HTTP port", "--http", self.listen.http),
            place::port("gRPC port", "--grpc", self.listen.grpc),
        ])
    }
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

//! `slm score`: the perplexity of a model on a text.

use std::{io::IsTerminal as _, path::PathBuf, time::Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use slm_launch::ExecutionProvider;
use slm_local::score::{Score, ScoreOptions, ScoreProgress, score};

use crate::args::{CacheArgs, Precision, precision, provider};
use slm_console::{
    exit::{self, Failure},
    output,
    store::cache_root,
    terminal,
};

/// Prints the perplexity of a model on a text.
///
/// The first N tokens of the text, tokenised with the model's own special tokens, are one window; every token but the
/// first is predicted from those before it, and the result is exp of the mean negative log-likelihood. Lower is better;
/// figures of different tokenizers do not compare.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  slm score --model SmolLM2-135M-Instruct.Q4_1.gguf --text LICENSE --tokens 1024\n  \
    slm score --model base --adapter adapters/banking --text mails.txt --tokens 512 --precision F32 --json"
)]
pub struct ScoreArgs {
    /// A GGUF file, or a Hugging Face folder with config.json and safetensors.
    #[arg(long, value_name = "FILE_OR_DIR")]
    model: PathBuf,
    /// An adapter folder as PEFT writes it.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The text, in UTF-8.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of the text to look at.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    tokens: u32,
    /// Precision of the weights in memory.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    precision: Precision,
    /// Execution provider of ONNX Runtime.
    #[arg(long, value_name = "PROVIDER", value_enum, default_value_t, ignore_case = true)]
    execution_provider: ExecutionProvider,
    /// Threads that compute [default: all that this process may use].
    #[arg(long, value_name = "N", env = "SLM_THREADS")]
    threads: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Runs it.
pub async fn execute(args: ScoreArgs) -> Result<(), Failure> {
    exit::blocking(move || {
        let begun = Instant::now();
        let Score { perplexity, bundle } = args.score()?;
        if !args.json {
            return output::line(&format!("perplexity {perplexity:.4} over {} tokens", args.tokens));
        }
        output::json(&json!({
            "perplexity": perplexity,
            "tokens": args.tokens,
            "model": args.model,
            "adapter": args.adapter,
            "digest": bundle.info.digest,
            "precision": bundle.info.flavour.precision.to_string(),
            "seconds": begun.elapsed().as_secs_f64(),
        }))
    })
    .await
}

impl ScoreArgs {
    fn score(&self) -> Result<Score, Failure> {
        let options = ScoreOptions {
            model: self.model.clone(),
            adapter: self.adapter.clone(),
            text: self.text.clone(),
            tokens: self.tokens as usize,
            provider: provider(self.execution_provider),
            precision: precision(self.precision),
            threads: self.threads,
            converted: cache_root(&self.cache)?.join("converted"),
        };
        let mut converting: Option<ProgressBar> = None;
        let mut scoring: Option<ProgressBar> = None;
        let score = score(&options, &mut |progress| match progress {
            ScoreProgress::Converting(done, total) => {
                if std::io::stderr().is_terminal() {
                    converting.get_or_insert_with(|| terminal::layers("the model", total)).set_position(done as u64);
                }
            }
            ScoreProgress::Scoring(done, total) => {
                converting.take().iter().for_each(ProgressBar::finish_and_clear);
                scoring.get_or_insert_with(|| bar(total)).set_position(done as u64);
            }
        });
        converting.iter().chain(&scoring).for_each(ProgressBar::finish_and_clear);
        score.map_err(Failure::failed)
    }
}

fn bar(tokens: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    // The template is ours and well formed; a bar without it would still do.
    let style = ProgressStyle::with_template("scoring {wide_bar:.green/dim} {pos}/{len} tokens, {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(tokens as u64).with_style(style)
}

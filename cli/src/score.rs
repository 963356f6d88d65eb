//! `slm score`: how well a model predicts a text.

use std::{io::IsTerminal as _, path::PathBuf, sync::Arc, time::Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use slm_convert::{bundle::Bundle, checkpoint::Checkpoint, pack::pack, peft::Adapter};
use slm_worker::{
    adapters::{AdapterInfo, AdapterLease, Adapters},
    model::available_threads,
    runtime::{DecoderSession, Runtime, SessionConfig, TOKENS_MAX},
    score::perplexity,
};

use crate::{
    args::{CacheArgs, Precision, cache_root, precision},
    exit::{self, Failure},
    output, terminal,
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
    /// Of the weights in memory.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    precision: Precision,
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
        let (perplexity, bundle) = args.score()?;
        if !args.json {
            return output::line(&format!("perplexity {perplexity:.4} over {} tokens", args.tokens));
        }
        output::json(&json!({
            "perplexity": perplexity,
            "tokens": args.tokens,
            "model": args.model,
            "adapter": args.adapter,
            "digest": bundle.info.digest,
            "precision": bundle.info.precision.to_string(),
            "seconds": begun.elapsed().as_secs_f64(),
        }))
    })
    .await
}

impl ScoreArgs {
    fn score(&self) -> Result<(f64, Bundle), Failure> {
        let runtime = Runtime::load().map_err(Failure::failed)?;
        let bundle = self.bundle()?;
        let tokens = self.window(&bundle)?;
        let adapters = Adapters::new(1, 1);
        let config = SessionConfig {
            context_length: tokens.len(),
            pages: SessionConfig::pages_for(1, tokens.len()),
            logits: tokens.len().min(TOKENS_MAX),
            threads: self.threads.unwrap_or_else(available_threads),
        };
        // Held until the end: with its lease an adapter leaves its slot.
        let lease = self.load_adapter(&bundle, &adapters)?;
        let mut session = DecoderSession::open(&runtime, &bundle, config, adapters.table()).map_err(Failure::failed)?;
        let slot = lease.as_ref().map(|lease| lease.slot());
        let bar = bar(tokens.len());
        let perplexity = perplexity(&mut session, &tokens, slot, &mut |done| bar.set_position(done as u64));
        bar.finish_and_clear();
        drop(lease);
        Ok((perplexity.map_err(Failure::failed)?, bundle))
    }

    fn bundle(&self) -> Result<Bundle, Failure> {
        let checkpoint = Checkpoint::open(&self.model).map_err(Failure::failed)?;
        let cache = cache_root(&self.cache)?.join("converted");
        let mut bar: Option<ProgressBar> = None;
        let progress = &mut |done: usize, total: usize| {
            if std::io::stderr().is_terminal() {
                bar.get_or_insert_with(|| terminal::layers("the model", total)).set_position(done as u64);
            }
        };
        let bundle = Bundle::open_or_build(&checkpoint, precision(self.precision), &cache, progress);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        bundle.map_err(Failure::failed)
    }

    /// The first tokens of the text.
    fn window(&self, bundle: &Bundle) -> Result<Vec<u32>, Failure> {
        let text =
            std::fs::read(&self.text).map_err(|error| Failure::failed(format!("{}: {error}", self.text.display())))?;
        let text = String::from_utf8(text).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Failure::failed(format!("{}: not UTF-8 at byte {at}", self.text.display()))
        })?;
        let tokenizer = bundle.tokenizer().map_err(Failure::failed)?;
        let tokenizer = tokenizer
            .ok_or_else(|| Failure::failed(format!("{}: the model has no tokenizer", self.model.display())))?;
        let encoding = tokenizer.encode(text, true).map_err(|error| Failure::failed(format!("tokenising: {error}")))?;
        let wanted = self.tokens as usize;
        let ids = encoding.get_ids();
        if ids.len() < wanted {
            let (file, there) = (self.text.display(), ids.len());
            return Err(Failure::failed(format!("{file}: has {there} tokens, but --tokens asks for {wanted}")));
        }
        Ok(ids[..wanted].to_vec())
    }

    fn load_adapter(&self, bundle: &Bundle, adapters: &Adapters) -> Result<Option<Arc<AdapterLease>>, Failure> {
        let Some(path) = &self.adapter else { return Ok(None) };
        let begun = Instant::now();
        let config = &bundle.info.config;
        let embedding = |name: &str| Checkpoint::open(&self.model).ok()?.tensor(name).ok();
        let adapter = Adapter::open_on(path, config, &embedding).map_err(Failure::failed)?;
        let packed = pack(&adapter, config, bundle.info.precision, 1.0).map_err(Failure::failed)?;
        let info = AdapterInfo::new("scored", &packed, 1.0, begun.elapsed());
        adapters.publish(info, packed).map(Some).map_err(Failure::failed)
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

//! `slm convert`: a checkpoint to a bundle, the folder that a worker opens.

use std::{fs, io::IsTerminal as _, path::PathBuf, time::Instant};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use slm_convert::{bundle::Bundle, checkpoint::Checkpoint};
use slm_launch::{ExecutionProvider, size};

use crate::args::{self, Precision};
use slm_console::{
    exit::{self, Failure},
    output, terminal,
};

/// Converts a checkpoint to an ONNX graph that LoRA adapters can be applied to.
///
/// `slm up` does this by itself and keeps the result in the cache; this is for looking at it, or for preparing it on
/// another machine.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm convert SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2-int4 --precision Int4")]
pub struct ConvertArgs {
    /// A GGUF file, or a Hugging Face folder with config.json and safetensors.
    source: PathBuf,
    /// The folder to write; it must not exist, or be empty.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Precision of the weights.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    precision: Precision,
    /// Execution provider of ONNX Runtime that the graph is for.
    #[arg(long, value_name = "PROVIDER", value_enum, default_value_t, ignore_case = true)]
    execution_provider: ExecutionProvider,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub async fn execute(args: ConvertArgs) -> Result<(), Failure> {
    exit::blocking(move || args.convert()).await
}

impl ConvertArgs {
    fn convert(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        let checkpoint = Checkpoint::open(&self.source).map_err(Failure::failed)?;
        for note in checkpoint.notes() {
            tracing::warn!("{note}");
        }
        self.prepare()?;
        let flavour =
            args::provider(self.execution_provider).flavour(args::precision(self.precision)).resolve(&checkpoint);
        let precision = flavour.precision;
        let mut bar: Option<ProgressBar> = None;
        let progress = &mut |done: usize, total: usize| {
            if std::io::stderr().is_terminal() {
                bar.get_or_insert_with(|| terminal::layers("the model", total)).set_position(done as u64);
            }
        };
        Bundle::build(&checkpoint, flavour, &self.output, progress).map_err(Failure::failed)?;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let bytes = self.written()?;
        let (layers, digest, seconds) =
            (checkpoint.architecture().layers.len(), checkpoint.digest(), begun.elapsed().as_secs_f64());
        if self.json {
            return output::json(&json!({
                "source": self.source,
                "output": self.output,
                "digest": digest,
                "precision": precision.to_string(),
                "layers": layers,
                "bytes": bytes,
                "seconds": seconds,
            }));
        }
        output::line(&format!(
            "{}: {layers} layers in {precision}, {} in {seconds:.1} s",
            self.output.display(),
            size(bytes)
        ))
    }

    fn prepare(&self) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", self.output.display()));
        fs::create_dir_all(&self.output).map_err(failed)?;
        if fs::read_dir(&self.output).map_err(failed)?.next().is_some() {
            return Err(Failure::usage(format!("{}: is not empty; name a new folder", self.output.display())));
        }
        Ok(())
    }

    fn written(&self) -> Result<u64, Failure> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.output)? {
            bytes += entry?.metadata()?.len();
        }
        Ok(bytes)
    }
}

//! A worker of SmolLM2-135M in the test's process.

use anyhow::{Context, Result};
use slm_artifacts::Source;
use slm_convert::{
    bundle::{PrecisionChoice, cache_dir},
    graph::Precision,
};
use slm_worker::WorkerConfig;

use crate::{real, tiny::Worker};

/// Its name.
pub const MODEL: &str = "smollm2";

/// Starts one, with drafts or without.
pub async fn worker(drafts: bool) -> Result<Worker> {
    worker_with(|config| config.model.prompt_lookup = drafts).await
}

/// Starts one with its configuration changed.
pub async fn worker_with(change: impl FnOnce(&mut WorkerConfig)) -> Result<Worker> {
    let converted = cache_dir().context("no cache folder")?.join("converted");
    let gguf = real::gguf()?;
    Worker::start(|config| {
        config.source = Source::new(format!("file:{}", gguf.display()));
        config.artifacts.converted = Some(converted.clone());
        config.model.name = MODEL.into();
        config.model.cache = converted;
        config.model.precision = PrecisionChoice::Exactly(Precision::Int4);
        config.model.context_length = Some(2048);
        config.model.sequences_max = 8;
        config.model.queue_max = 64;
        change(config);
    })
    .await
}

//! A worker of the tiny model of the parity suite, in this process.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use slm_artifacts::{Source, StoreConfig};
use slm_convert::{bundle::PrecisionChoice, graph::Precision};
use slm_proto::v1::{self, generate_request::Input, generate_response::Event};
use slm_worker::{WorkerConfig, model::ModelOptions};
use tonic::Streaming;

fn family() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/data/llama")
}

/// The folder of one of its adapters.
#[must_use]
pub fn adapter(name: &str) -> PathBuf {
    family().join("adapters").join(name)
}

/// How to run it, on a free port of loopback; everything that it writes is in `cache`.
///
/// # Errors
/// None that a test would meet.
pub fn worker(cache: &Path) -> Result<WorkerConfig> {
    let model = ModelOptions {
        name: "tiny".into(),
        path: PathBuf::new(),
        digest: None,
        precision: PrecisionChoice::Exactly(Precision::F32),
        context_length: None,
        sequences_max: 4,
        queue_max: 8,
        kv_cache_bytes: None,
        prefix_cache: true,
        prompt_lookup: true,
        threads: Some(2),
        adapter_slots: 2,
        adapter_rank_max: 16,
        cache: cache.into(),
    };
    Ok(WorkerConfig {
        model,
        source: Source::new(format!("file:{}", family().display())),
        artifacts: StoreConfig::new(cache.join("artifacts")),
        listen: "127.0.0.1:0".parse()?,
        tls: None,
        probes: None,
        drain_timeout: Duration::from_secs(30),
    })
}

/// A request for greedy tokens with their log-probabilities.
pub fn greedy(model: &str, prompt: &[u32], max_tokens: u32) -> v1::GenerateRequest {
    v1::GenerateRequest {
        model: model.into(),
        input: Some(Input::TokenIds(v1::TokenIds { ids: prompt.to_vec() })),
        sampling: Some(v1::Sampling { temperature: Some(0.0), ..Default::default() }),
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        logprobs: Some(0),
        ..Default::default()
    }
}

/// The rest of an answer. The model has no tokenizer, so what it says is read from the log-probabilities.
///
/// # Errors
/// What the worker says.
pub async fn ids(stream: &mut Streaming<v1::GenerateResponse>) -> Result<Vec<u32>, tonic::Status> {
    let mut ids = Vec::new();
    while let Some(response) = stream.message().await? {
        if let Some(Event::Delta(delta)) = response.event {
            ids.extend(delta.logprobs.iter().map(|token| token.id));
        }
    }
    Ok(ids)
}

//! A worker of the tiny model of the parity suite, in this process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use slm_artifacts::{Source, StoreConfig};
use slm_convert::{bundle::PrecisionChoice, graph::Precision};
use slm_proto::v1::{
    self, generate_request::Input, generate_response::Event, generation_client::GenerationClient,
    worker_control_client::WorkerControlClient,
};
use slm_worker::{WorkerConfig, WorkerError, WorkerEvent, model::ModelOptions, runtime::Provider};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};

fn family() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/data/llama")
}

/// The folder of one of its adapters.
#[must_use]
pub fn adapter(name: &str) -> PathBuf {
    family().join("adapters").join(name)
}

/// The model with a context of that many positions, written into `dir`.
///
/// # Errors
/// A file cannot be read or written.
pub fn with_context(positions: u32, dir: &Path) -> Result<Source> {
    let folder = dir.join("long-context");
    fs::create_dir_all(&folder)?;
    fs::copy(family().join("model.safetensors"), folder.join("model.safetensors"))?;
    let mut config: Value = serde_json::from_slice(&fs::read(family().join("config.json"))?)?;
    config["max_position_embeddings"] = positions.into();
    fs::write(folder.join("config.json"), config.to_string())?;
    Ok(Source::new(format!("file:{}", folder.display())))
}

/// Its configuration, on a free port of loopback; everything that it writes is in `cache`.
///
/// # Errors
/// None that a test would meet.
pub fn worker(cache: &Path) -> Result<WorkerConfig> {
    let model = ModelOptions {
        name: "tiny".into(),
        path: PathBuf::new(),
        digest: None,
        provider: Provider::Cpu,
        task: slm_worker::model::Task::Generate,
        precision: PrecisionChoice::Exactly(Precision::F32),
        context_length: None,
        sequences_max: 4,
        queue_max: 8,
        unread_max: None,
        kv_cache_bytes: None,
        prefix_cache: true,
        prompt_lookup: true,
        threads: Some(2),
        adapter_slots: 2,
        adapter_host_bytes: 1 << 20,
        adapter_rank_max: 16,
        cache: cache.join("converted"),
    };
    Ok(WorkerConfig {
        model,
        source: Source::new(format!("file:{}", family().display())),
        artifacts: StoreConfig {
            converted: Some(cache.join("converted")),
            ..StoreConfig::new(cache.join("artifacts"))
        },
        listen: "127.0.0.1:0".parse()?,
        tls: None,
        probes: None,
        drain_timeout: Duration::from_secs(30),
        read_timeout: Duration::from_secs(60),
        load_timeout: Duration::from_secs(600),
    })
}

/// One on its way or running, which ends with the test.
pub struct Worker {
    /// To its generation, over one connection.
    pub generation: GenerationClient<Channel>,
    /// To its control, over another.
    pub control: WorkerControlClient<Channel>,
    /// Its address.
    pub url: String,
    /// Asks it to end.
    pub shutdown: CancellationToken,
    /// Its end.
    pub done: JoinHandle<Result<(), WorkerError>>,
    /// Its cache folder.
    pub cache: TempDir,
}

impl Worker {
    /// Starts one, and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub async fn start(change: impl FnOnce(&mut WorkerConfig)) -> Result<Self> {
        let cache = tempfile::tempdir()?;
        let mut config = worker(cache.path())?;
        change(&mut config);
        let shutdown = CancellationToken::new();
        let (ready, mut address) = mpsc::unbounded_channel::<SocketAddr>();
        let done = tokio::spawn(slm_worker::run(config, shutdown.clone(), move |event| {
            if let WorkerEvent::Ready { address } = event {
                // Nobody listens any more once the test has failed.
                let _ = ready.send(address);
            }
        }));
        let url = format!("http://{}", address.recv().await.context("the worker did not get ready")?);
        let generation = GenerationClient::connect(url.clone()).await?;
        let control = WorkerControlClient::connect(url.clone()).await?;
        Ok(Self { generation, control, url, shutdown, done, cache })
    }

    /// Ends it and waits for that.
    ///
    /// # Errors
    /// Its own.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(self.done.await??)
    }

    /// The first published state that `wanted` holds for.
    ///
    /// # Errors
    /// It does not come.
    pub async fn state(&mut self, wanted: impl Fn(&v1::WorkerState) -> bool) -> Result<v1::WorkerState> {
        let mut states = self.control.watch_state(v1::WatchStateRequest {}).await?.into_inner();
        let mut last = None;
        let seen = async {
            while let Some(state) = states.message().await? {
                if wanted(&state) {
                    return Ok(state);
                }
                last = Some(state);
            }
            anyhow::bail!("the state stream ended")
        };
        let seen = tokio::time::timeout(Duration::from_secs(30), seen).await;
        seen.with_context(|| format!("the state never came; the last: {last:?}"))?
    }

    /// Loads the adapter in a folder.
    ///
    /// # Errors
    /// The worker's status.
    pub async fn load(&mut self, name: &str, path: &Path) -> Result<v1::AdapterState, tonic::Status> {
        let request = v1::LoadAdapterRequest {
            name: name.into(),
            source: format!("file:{}", path.display()),
            ..Default::default()
        };
        self.control.load_adapter(request).await.map(tonic::Response::into_inner)
    }
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
/// The worker's status.
pub async fn ids(stream: &mut Streaming<v1::GenerateResponse>) -> Result<Vec<u32>, tonic::Status> {
    let mut ids = Vec::new();
    while let Some(response) = stream.message().await? {
        if let Some(Event::Delta(delta)) = response.event {
            ids.extend(delta.logprobs.iter().map(|token| token.id));
        }
    }
    Ok(ids)
}

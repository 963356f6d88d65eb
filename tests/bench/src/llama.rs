//! llama.cpp's `llama-server`, started as one who wants speed of it on these cores would.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use slm_worker::model::available_threads;
use tokio::{
    process::{Child, Command},
    time,
};

use crate::{
    load::{Api, Endpoint},
    run::interrupt,
};

/// Loading the model and 32 adapters takes a second or two.
const READY_WITHIN: Duration = Duration::from_secs(120);

pub(crate) struct LlamaServer {
    process: Child,
    url: String,
    pub(crate) endpoint: Endpoint,
}

/// Launch options of the server.
pub(crate) struct LlamaOptions {
    pub(crate) model: PathBuf,
    /// Sequences that decode together.
    pub(crate) sequences: usize,
    /// GGUF files of the adapters, by number.
    pub(crate) adapters: Vec<PathBuf>,
}

impl LlamaServer {
    /// Starts it, and waits until it answers; what it says goes to `log`.
    pub(crate) async fn start(program: &Path, log: &Path, wanted: &LlamaOptions) -> Result<Self> {
        // It cannot be asked which port it took, so a free one is found first.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let said = File::create(log)?;
        let mut command = Command::new(program);
        command.args(wanted.arguments(port)).stdout(said.try_clone()?).stderr(said).kill_on_drop(true);
        let process = command.spawn().with_context(|| program.display().to_string())?;
        let url = format!("http://127.0.0.1:{port}");
        let mut server = Self { process, endpoint: Endpoint::new(Api::LlamaCpp, url.clone())?, url };
        match time::timeout(READY_WITHIN, server.ready()).await.context("it does not answer").flatten() {
            Ok(()) => Ok(server),
            Err(error) => {
                let said = fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<_> = said.lines().rev().take(20).collect();
                let last: String = lines.iter().rev().map(|line| format!("\n  {line}")).collect();
                Err(error.context(format!("llama-server did not start; the last that it said:{last}")))
            }
        }
    }

    /// Bytes of all weights, as it says itself.
    pub(crate) async fn weight_bytes(&self) -> Result<u64> {
        let models: Value = reqwest::get(format!("{}/v1/models", self.url)).await?.json().await?;
        models["data"][0]["meta"]["size"].as_u64().context("llama-server tells no size of its model")
    }

    /// Ends it as Ctrl-C would.
    pub(crate) async fn stop(self) -> Result<()> {
        interrupt(self.process).await
    }

    async fn ready(&mut self) -> Result<()> {
        let mut tick = time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended: {status}");
            }
            if reqwest::get(format!("{}/health", self.url)).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
        }
    }
}

impl LlamaOptions {
    /// What is not said here is best left alone: batches are continuous and weights rearranged by default, flash
    /// attention is on where it is faster (it is), and one cache for all sequences (`--kv-unified`) is a fifth slower.
    /// A server for 32 sequences is as fast with 8 as one for 8.
    fn arguments(&self, port: u16) -> Vec<String> {
        let mut arguments = vec!["--model".to_owned(), self.model.display().to_string()];
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--host", "127.0.0.1".into());
        add("--port", port.to_string());
        add("--threads", available_threads().to_string());
        add("--parallel", self.sequences.to_string());
        add("--ctx-size", (self.sequences * crate::CONTEXT).to_string());
        // No room for prompts that were: every one is a new one here.
        add("--cache-ram", "0".into());
        if !self.adapters.is_empty() {
            let files: Vec<_> = self.adapters.iter().map(|path| path.display().to_string()).collect();
            add("--lora", files.join(","));
            arguments.push("--lora-init-without-apply".into());
        }
        arguments
    }
}

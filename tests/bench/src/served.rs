//! The same through the front door: `slm up`, HTTP, server-sent events.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, future::try_join_all};
use serde_json::{Value, json};
use slm_tests::real;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{ANSWER, Mix, RANK, STREAMS};

pub(crate) struct Served {
    swarm: Child,
    url: String,
    client: reqwest::Client,
}

/// When the pieces of one answer came.
struct Timeline {
    pieces: Vec<Instant>,
    tokens: usize,
}

impl Served {
    /// Starts a swarm of the base and the adapters in `dir`.
    pub(crate) async fn start(slm: &Path, dir: &Path) -> Result<Self> {
        let manifests = dir.join("manifests");
        fs::create_dir_all(&manifests)?;
        fs::write(manifests.join("swarm.yaml"), manifest(dir)?)?;
        let mut swarm = Command::new(slm)
            .args(["up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "-f"])
            .arg(&manifests)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| slm.display().to_string())?;
        let mut lines = BufReader::new(swarm.stdout.take().context("no output")?).lines();
        let line = loop {
            match lines.next_line().await? {
                Some(line) if line.starts_with("ready ") => break line,
                Some(_) => {}
                None => bail!("the swarm ended: {}", swarm.wait().await?),
            }
        };
        let http = line.split_whitespace().find_map(|word| word.strip_prefix("http=")).context("no http= in ready")?;
        let url = if http.starts_with("http://") { http.to_owned() } else { format!("http://{http}") };
        Ok(Self { swarm, url, client: reqwest::Client::builder().tcp_nodelay(true).build()? })
    }

    /// Decoded tokens a second of `streams` requests while all of them run.
    pub(crate) async fn decode(&self, streams: usize, mix: Mix, prompt: &[u32]) -> Result<f64> {
        let requests = (0..streams).map(|stream| {
            let model = mix.adapter(stream).map_or("base".to_owned(), |i| format!("adapter-{i}"));
            self.stream(model, prompt, ANSWER)
        });
        let timelines = try_join_all(requests).await?;
        // From when the last has its first token to when the first has its last: all decode, none reads its prompt.
        let begin = timelines.iter().map(|t| t.pieces[0]).max().context("no streams")?;
        let end = timelines.iter().filter_map(|t| t.pieces.last().copied()).min().context("no streams")?;
        let tokens: f64 = timelines
            .iter()
            .map(|t| {
                let within = t.pieces.iter().filter(|&&at| at > begin && at <= end).count();
                within as f64 * t.tokens as f64 / t.pieces.len() as f64
            })
            .sum();
        Ok(tokens / end.duration_since(begin).as_secs_f64())
    }

    /// Seconds from sending a prompt to its first token.
    pub(crate) async fn first_token(&self, prompt: &[u32]) -> Result<f64> {
        let begun = Instant::now();
        let timeline = self.stream("base".into(), prompt, 1).await?;
        Ok(timeline.pieces[0].duration_since(begun).as_secs_f64())
    }

    /// Ends the swarm as Ctrl-C would.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.swarm.id() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGINT)?;
        }
        tokio::time::timeout(Duration::from_secs(20), self.swarm.wait()).await??;
        Ok(())
    }

    async fn stream(&self, model: String, prompt: &[u32], tokens: usize) -> Result<Timeline> {
        let body = json!({
            "model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true,
            "stream": true, "stream_options": {"include_usage": true},
        });
        let response = self.client.post(format!("{}/v1/completions", self.url)).json(&body).send().await?;
        if !response.status().is_success() {
            bail!("{}: {}", response.status(), response.text().await?);
        }
        let mut timeline = Timeline { pieces: Vec::new(), tokens: 0 };
        let mut buffered = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(bytes) = body.next().await {
            buffered.extend_from_slice(&bytes?);
            let now = Instant::now();
            while let Some(end) = buffered.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = buffered.drain(..end + 2).collect();
                let Some(data) = event.strip_prefix(b"data: ") else { continue };
                if data.starts_with(b"[DONE]") {
                    ensure!(timeline.tokens == tokens, "{} tokens for {tokens}", timeline.tokens);
                    return Ok(timeline);
                }
                let chunk: Value = serde_json::from_slice(data)?;
                if chunk["choices"][0]["text"].as_str().is_some_and(|text| !text.is_empty()) {
                    timeline.pieces.push(now);
                }
                if let Some(count) = chunk["usage"]["completion_tokens"].as_u64() {
                    timeline.tokens = count as usize;
                }
            }
        }
        bail!("the stream ended without [DONE]")
    }
}

fn manifest(dir: &Path) -> Result<String> {
    let header = |kind: &str, name: &str| {
        format!("apiVersion: slmswarm.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
    };
    let model = real::gguf()?;
    let mut text = header("SlmModel", "base");
    text += &format!(
        "spec:\n  source: {{uri: \"file://{}\"}}\n  runtime: {{precision: Int4, maxSequences: {STREAMS}, contextLength: 1024}}\n  \
         adapters: {{slots: {STREAMS}, maxRank: {RANK}}}\n",
        model.display()
    );
    for i in 0..STREAMS {
        text += "---\n";
        text += &header("LoraAdapter", &format!("adapter-{i}"));
        let path = dir.join(format!("adapter-{i}"));
        text += &format!("spec:\n  modelRef: {{name: base}}\n  source: {{uri: \"file://{}\"}}\n", path.display());
    }
    Ok(text)
}

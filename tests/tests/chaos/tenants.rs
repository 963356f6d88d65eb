//! The two tenants: sixteen streams, each answer held against what its expert answers alone.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use slm_tests::swarm::Swarm;

use crate::access::{Access, TENANTS};

const STREAMS: usize = 16;
const TOKENS: u32 = 40;
const EXPERTS: [&str; 4] = ["smollm2", "banking", "travel", "kitchen"];

/// What both tenants ask, and what they have to hear.
pub(crate) struct Scene {
    client: reqwest::Client,
    url: String,
    prompts: Vec<String>,
    references: HashMap<(usize, usize), String>,
}

/// What came of some time's work.
pub(crate) struct Work {
    answers: usize,
    /// From one event of a stream to its next.
    pub(crate) gaps: Vec<Duration>,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| percentile(&self.gaps, share));
        write!(f, "{} answers; between tokens p50 {p50:.1?}, p99 {p99:.1?}, at most {most:.1?}", self.answers)
    }
}

impl Scene {
    pub(crate) async fn new(swarm: &Swarm, access: &Access) -> Result<Self> {
        let certificate = reqwest::Certificate::from_pem(access.certificate().as_bytes())?;
        let client = reqwest::Client::builder().no_proxy().add_root_certificate(certificate).build()?;
        let port = swarm.http.rsplit(':').next().context("a port")?;
        let url = format!("https://localhost:{port}/v1/completions");
        let words: Vec<&str> = include_str!("../../../LICENSE").split_whitespace().collect();
        let prompts = [(0, 3), (0, 40), (0, 160), (200, 30), (700, 90)];
        let prompts = prompts.map(|(first, count)| words[first..first + count].join(" ")).to_vec();
        let mut scene = Self { client, url, prompts, references: HashMap::new() };
        for expert in 0..EXPERTS.len() {
            for prompt in 0..scene.prompts.len() {
                let (text, _) = scene.ask(0, expert, prompt).await?;
                scene.references.insert((expert, prompt), text);
            }
        }
        Ok(scene)
    }

    /// The text of an answer, and the times between its events.
    async fn ask(&self, tenant: usize, expert: usize, prompt: usize) -> Result<(String, Vec<Duration>)> {
        let body = json!({
            "model": EXPERTS[expert], "prompt": self.prompts[prompt], "max_tokens": TOKENS, "temperature": 0,
            "ignore_eos": true, "stream": true,
        });
        let request = self.client.post(&self.url).bearer_auth(TENANTS[tenant]).json(&body);
        let response = request.send().await?;
        let status = response.status();
        ensure!(status.is_success(), "{status}: {}", response.text().await?);
        let mut bytes = response.bytes_stream();
        let (mut text, mut gaps, mut last, mut rest) = (String::new(), Vec::new(), None, String::new());
        while let Some(piece) = bytes.next().await {
            rest.push_str(std::str::from_utf8(&piece?)?);
            while let Some(end) = rest.find("\n\n") {
                let event: String = rest.drain(..end + 2).collect();
                let event = event.trim().strip_prefix("data: ").context("an event")?.to_owned();
                if event == "[DONE]" {
                    return Ok((text, gaps));
                }
                let event: Value = serde_json::from_str(&event)?;
                ensure!(event["error"].is_null(), "{event}");
                let piece = event["choices"][0]["text"].as_str().unwrap_or_default();
                if !piece.is_empty() {
                    text.push_str(piece);
                    let now = Instant::now();
                    gaps.extend(last.replace(now).map(|last| now - last));
                }
            }
        }
        anyhow::bail!("the stream ended without [DONE] after {text:?}")
    }

    /// All streams at once.
    pub(crate) async fn work(self: &Arc<Self>, until: Instant) -> Result<Work> {
        let streams: Vec<_> = (0..STREAMS).map(|seed| tokio::spawn(stream(Arc::clone(self), seed, until))).collect();
        let mut work = Work { answers: 0, gaps: Vec::new() };
        for stream in streams {
            let one = stream.await??;
            work.answers += one.answers;
            work.gaps.extend(one.gaps);
        }
        ensure!(work.answers > 0, "not one answer");
        Ok(work)
    }
}

async fn stream(scene: Arc<Scene>, seed: usize, until: Instant) -> Result<Work> {
    let mut random = StdRng::seed_from_u64(seed as u64);
    let mut work = Work { answers: 0, gaps: Vec::new() };
    while Instant::now() < until {
        let (expert, prompt) = (random.random_range(0..EXPERTS.len()), random.random_range(0..scene.prompts.len()));
        let (text, gaps) = scene.ask(seed % TENANTS.len(), expert, prompt).await?;
        let reference = &scene.references[&(expert, prompt)];
        ensure!(text == *reference, "{} to prompt {prompt}: {text:?}, alone {reference:?}", EXPERTS[expert]);
        work.answers += 1;
        work.gaps.extend(gaps);
    }
    Ok(work)
}

/// The value that `share` of all do not exceed.
pub(crate) fn percentile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share) as usize).copied().unwrap_or_default()
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

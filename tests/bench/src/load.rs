//! Requests over HTTP, all at once, and when the pieces of their answers came: the same client for both servers.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, future::try_join_all};
use serde_json::{Value, json};

/// Endpoint of a server.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    api: Api,
    url: String,
    client: reqwest::Client,
}

/// API of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// `/v1/completions`; an adapter is a model.
    OpenAi,
    /// llama.cpp's `/completion`, for its `/v1/completions` tells less; an adapter is a number.
    LlamaCpp,
}

/// One request of a load.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) prompt: Vec<u32>,
    /// Number of the adapter; none asks the base.
    pub(crate) adapter: Option<usize>,
    /// Tokens wanted; no fewer will come.
    pub(crate) answer: usize,
    /// JSON Schema of the answer.
    pub(crate) rule: Option<Value>,
}

/// Answers of requests that were sent together.
pub(crate) struct LoadResult {
    begun: Instant,
    pub(crate) answers: Vec<Answer>,
}

/// One answer.
pub(crate) struct Answer {
    pub(crate) text: String,
    /// Digest of the version that gave it, where the server says so.
    pub(crate) version: String,
    /// Arrival times of its pieces. Most have one token; an incomplete character waits for the next.
    pieces: Vec<Instant>,
    tokens: usize,
}

impl Endpoint {
    pub(crate) fn new(api: Api, url: String) -> Result<Self> {
        // Connections of their own: a server may end an idle one in the moment in which it is used again.
        let client = reqwest::Client::builder().tcp_nodelay(true).pool_max_idle_per_host(0).build()?;
        Ok(Self { api, url, client })
    }

    /// Sends all requests at once and waits for every answer.
    pub(crate) async fn run(&self, requests: &[Request]) -> Result<LoadResult> {
        let begun = Instant::now();
        let received = try_join_all(requests.iter().map(|request| self.receive(request))).await?;
        // Read only now, for the client shares the cores with the server.
        let answers = received.iter().zip(requests);
        let answers = answers.map(|(parts, request)| self.read(parts, request)).collect::<Result<_>>()?;
        Ok(LoadResult { begun, answers })
    }

    /// One request alone.
    pub(crate) async fn ask(&self, request: Request) -> Result<LoadResult> {
        self.run(&[request]).await
    }

    async fn receive(&self, request: &Request) -> Result<Vec<(Instant, Vec<u8>)>> {
        let (path, body) = match self.api {
            Api::OpenAi => ("v1/completions", openai_body(request)),
            Api::LlamaCpp => ("completion", llama_body(request)),
        };
        let response = self.client.post(format!("{}/{path}", self.url)).json(&body).send().await?;
        if !response.status().is_success() {
            bail!("{}: {}", response.status(), response.text().await?);
        }
        let mut parts = Vec::with_capacity(request.answer + 8);
        let mut body = response.bytes_stream();
        while let Some(bytes) = body.next().await {
            parts.push((Instant::now(), bytes?.to_vec()));
        }
        Ok(parts)
    }

    fn read(&self, parts: &[(Instant, Vec<u8>)], request: &Request) -> Result<Answer> {
        let mut answer = Answer { text: String::new(), version: String::new(), pieces: Vec::new(), tokens: 0 };
        let mut prompt_tokens = 0;
        let mut buffered = Vec::new();
        for (at, bytes) in parts {
            buffered.extend_from_slice(bytes);
            while let Some(end) = buffered.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = buffered.drain(..end + 2).collect();
                let Some(data) = event.strip_prefix(b"data: ") else { continue };
                if data.starts_with(b"[DONE]") {
                    continue;
                }
                let chunk: Value = serde_json::from_slice(data)?;
                let (text, prompt, tokens) = match self.api {
                    Api::OpenAi => openai_chunk(&chunk),
                    Api::LlamaCpp => llama_chunk(&chunk),
                };
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    answer.text += text;
                    answer.pieces.push(*at);
                }
                if let Some(version) = chunk["system_fingerprint"].as_str() {
                    version.clone_into(&mut answer.version);
                }
                prompt_tokens = prompt.unwrap_or(prompt_tokens);
                answer.tokens = tokens.unwrap_or(answer.tokens);
            }
        }
        let (wanted, given) = ((request.prompt.len(), request.answer), (prompt_tokens, answer.tokens));
        ensure!(given == wanted, "{:?} did {given:?} tokens of prompt and answer for {wanted:?}", self.api);
        ensure!(!answer.pieces.is_empty(), "{:?} answered without text", self.api);
        Ok(answer)
    }
}

fn openai_body(request: &Request) -> Value {
    let model = request.adapter.map_or("base".to_owned(), |i| format!("adapter-{i}"));
    json!({
        "model": model, "prompt": request.prompt, "max_tokens": request.answer, "temperature": 0, "ignore_eos": true,
        "stream": true, "stream_options": {"include_usage": true}, "guided_json": request.rule,
    })
}

fn llama_body(request: &Request) -> Value {
    // The adapters that are not named are off; but where none is named, all are on, so the base has to turn one off.
    let (id, scale) = request.adapter.map_or((0, 0.0), |i| (i, 1.0));
    // Greedy by the first of its samplers alone: its whole chain costs it a hundredth or two more.
    json!({
        "prompt": request.prompt, "n_predict": request.answer, "samplers": ["top_k"], "top_k": 1, "ignore_eos": true,
        "stream": true, "cache_prompt": false, "lora": [{"id": id, "scale": scale}],
    })
}

/// Text, and at the end the tokens of prompt and answer.
type Chunk<'a> = (Option<&'a str>, Option<usize>, Option<usize>);

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok())
}

fn openai_chunk(chunk: &Value) -> Chunk<'_> {
    let usage = &chunk["usage"];
    (chunk["choices"][0]["text"].as_str(), count(&usage["prompt_tokens"]), count(&usage["completion_tokens"]))
}

fn llama_chunk(chunk: &Value) -> Chunk<'_> {
    // Those that it computed, not those that it found in a cache.
    let timings = &chunk["timings"];
    (chunk["content"].as_str(), count(&timings["prompt_n"]), count(&timings["predicted_n"]))
}

impl LoadResult {
    /// Answered tokens a second of wall time, from the first request sent to the last token received.
    pub(crate) fn rate(&self) -> f64 {
        let tokens: usize = self.answers.iter().map(|answer| answer.tokens).sum();
        let end = self.answers.iter().filter_map(|answer| answer.pieces.last()).max();
        end.map_or(f64::NAN, |end| tokens as f64 / (*end - self.begun).as_secs_f64())
    }

    /// The time in which every stream decodes: from when the last has its first token to when the first has its last,
    /// so that none reads its prompt.
    pub(crate) fn together(&self) -> Result<(Instant, Instant)> {
        let begin = self.answers.iter().map(|answer| answer.pieces[0]).max().context("no streams")?;
        let end = self.answers.iter().filter_map(|answer| answer.pieces.last().copied()).min().context("no streams")?;
        Ok((begin, end))
    }

    /// Decoded tokens a second while every stream decodes.
    pub(crate) fn decode_rate(&self) -> Result<f64> {
        let (begin, end) = self.together()?;
        let tokens: f64 = self
            .answers
            .iter()
            .map(|answer| {
                let within = answer.pieces.iter().filter(|&&at| at > begin && at <= end).count();
                within as f64 * answer.tokens as f64 / answer.pieces.len() as f64
            })
            .sum();
        Ok(tokens / end.duration_since(begin).as_secs_f64())
    }

    /// Seconds to each stream's first token.
    pub(crate) fn first_tokens(&self) -> Vec<f64> {
        self.answers.iter().map(|answer| (answer.pieces[0] - self.begun).as_secs_f64()).collect()
    }

    /// Seconds between one piece of an answer and the next, of all streams.
    pub(crate) fn gaps(&self) -> Vec<f64> {
        self.gaps_where(|_| true)
    }

    /// The same while every stream decodes.
    pub(crate) fn gaps_together(&self) -> Result<Vec<f64>> {
        let (begin, end) = self.together()?;
        Ok(self.gaps_where(|pair| pair[0] >= begin && pair[1] <= end))
    }

    fn gaps_where(&self, counts: impl Fn(&[Instant]) -> bool) -> Vec<f64> {
        let pairs = self.answers.iter().flat_map(|answer| answer.pieces.windows(2));
        pairs.filter(|pair| counts(pair)).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}

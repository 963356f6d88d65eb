//! Calls over gRPC, as a Rust program makes them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use slm_proto::v1::{
    Decision, Expert, FinishReason, Finished, GenerateRequest, GenerateResponse, ListModelsRequest, Message, Messages,
    ModelInfo, Sampling, Started, generate_request::Input, generate_response::Event,
    generation_client::GenerationClient, swarm_client::SwarmClient,
};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// A change of the swarm takes milliseconds; under load on a slow machine, seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Silence after which the other end is asked whether it is there, and then given up.
const GONE: Duration = Duration::from_secs(5);
/// Between two looks at what the router lists; it announces no changes.
const TICK: Duration = Duration::from_millis(5);

/// A client of a swarm's gRPC endpoint.
#[derive(Clone, Debug)]
pub struct Client {
    generation: GenerationClient<Channel>,
    swarm: SwarmClient<Channel>,
}

/// A request. Greedy.
#[derive(Clone, Debug)]
pub struct Call {
    /// A base model, an adapter or a route.
    pub model: String,
    /// One message of a user, or the raw text.
    pub prompt: String,
    /// As it is, without the chat template.
    pub raw: bool,
    /// At most.
    pub max_tokens: u32,
    /// Go on to `max_tokens` whatever comes.
    pub ignore_eos: bool,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The expert that answered.
    pub expert: Expert,
    /// The text.
    pub text: String,
    /// Finish reason.
    pub reason: FinishReason,
    /// Tokens of the answer.
    pub tokens: u32,
}

impl Call {
    /// A short one.
    pub fn new(model: &str, prompt: &str) -> Self {
        Self { model: model.to_owned(), prompt: prompt.to_owned(), raw: false, max_tokens: 16, ignore_eos: false }
    }

    /// One that runs to exactly `tokens`.
    pub fn long(model: &str, prompt: &str, tokens: u32) -> Self {
        Self { max_tokens: tokens, ignore_eos: true, ..Self::new(model, prompt) }
    }

    /// One that continues the prompt itself, for exactly `tokens`.
    pub fn continuing(model: &str, prompt: &str, tokens: u32) -> Self {
        Self { raw: true, ..Self::long(model, prompt, tokens) }
    }

    /// As the protocol has it.
    pub fn request(&self) -> GenerateRequest {
        let input = if self.raw {
            Input::Prompt(self.prompt.clone())
        } else {
            let message = Message { role: "user".to_owned(), content: self.prompt.clone(), ..Default::default() };
            Input::Messages(Messages { messages: vec![message] })
        };
        GenerateRequest {
            model: self.model.clone(),
            input: Some(input),
            sampling: Some(Sampling { temperature: Some(0.0), ..Default::default() }),
            max_tokens: Some(self.max_tokens),
            ignore_eos: self.ignore_eos,
            ..Default::default()
        }
    }
}

impl Client {
    /// Connects with the first call, and notices when the other end has gone without a word.
    pub fn new(address: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(address.to_owned())?
            .connect_timeout(GONE)
            .http2_keep_alive_interval(GONE)
            .keep_alive_timeout(GONE)
            .connect_lazy();
        Ok(Self { generation: GenerationClient::new(channel.clone()), swarm: SwarmClient::new(channel) })
    }

    /// Begins a stream.
    pub async fn stream(&self, request: GenerateRequest) -> Result<Stream, Status> {
        let mut messages = self.generation.clone().generate(request).await?.into_inner();
        match messages.message().await?.and_then(|message| message.event) {
            Some(Event::Started(started)) => Ok(Stream { started, messages }),
            other => Err(Status::internal(format!("the stream began with {other:?}"))),
        }
    }

    /// Asks and reads the stream to its end.
    pub async fn ask(&self, call: &Call) -> Result<Answer> {
        let what = || format!("{}: {:?}", call.model, call.prompt);
        self.stream(call.request()).await.with_context(what)?.rest().await.with_context(what)
    }

    /// The status of a call that is refused.
    pub async fn refusal(&self, request: GenerateRequest) -> Result<Status> {
        match self.stream(request).await {
            Err(status) => Ok(status),
            Ok(stream) => match stream.rest().await {
                Err(error) => error.downcast::<Status>(),
                Ok(answer) => bail!("answered, though it must be refused: {answer:?}"),
            },
        }
    }

    /// The routing decision for a call.
    pub async fn explain(&self, call: &Call) -> Result<Decision> {
        Ok(self.swarm.clone().explain(call.request()).await?.into_inner())
    }

    /// Waits until a call would be answered by `expert`.
    pub async fn until_chosen(&self, call: &Call, expert: &str) -> Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        let chosen = async {
            while self.explain(call).await?.chosen.is_none_or(|chosen| chosen.name != expert) {
                ticks.tick().await;
            }
            Ok(())
        };
        tokio::time::timeout(LIMIT, chosen)
            .await
            .with_context(|| format!("waited {LIMIT:?} for {expert} to be chosen"))?
    }

    /// Every name.
    pub async fn models(&self) -> Result<Vec<ModelInfo>> {
        Ok(self.swarm.clone().list_models(ListModelsRequest {}).await?.into_inner().models)
    }

    /// The address of the worker that holds `name`.
    pub async fn worker_of(&self, name: &str) -> Result<String> {
        let found = self.models().await?.into_iter().find(|model| model.name == name);
        found.and_then(|model| model.workers.into_iter().next()).with_context(|| format!("no worker holds {name}"))
    }

    /// Waits until the swarm's list of `name` is as wanted; `None` stands for a name that is not there.
    pub async fn until(&self, name: &str, wanted: impl Fn(Option<&ModelInfo>) -> bool) -> Result<Option<ModelInfo>> {
        let begun = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let found = self.models().await?.into_iter().find(|model| model.name == name);
            if wanted(found.as_ref()) {
                return Ok(found);
            }
            ensure!(begun.elapsed() < LIMIT, "waited {LIMIT:?} for {name}, which is {found:?}");
        }
    }

    /// Waits until `name` is served in a version other than `digest`, and gives its digest.
    pub async fn until_replaced(&self, name: &str, digest: &str) -> Result<String> {
        let other = |model: Option<&ModelInfo>| model.is_some_and(|model| model.ready && model.digest != digest);
        let found = self.until(name, other).await?;
        Ok(found.map(|model| model.digest).unwrap_or_default())
    }
}

/// An answer that has begun.
#[derive(Debug)]
pub struct Stream {
    /// Its first message.
    pub started: Started,
    messages: Streaming<GenerateResponse>,
}

impl Stream {
    /// The next piece of text; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<String>> {
        match self.messages.message().await?.and_then(|message| message.event) {
            Some(Event::Delta(delta)) => Ok(Some(delta.text)),
            Some(Event::Finished(_)) | None => Ok(None),
            Some(Event::Started(_)) => bail!("started twice"),
        }
    }

    /// Reads to the end.
    pub async fn rest(mut self) -> Result<Answer> {
        let (mut text, mut tokens, mut finished) = (String::new(), 0, None::<Finished>);
        while let Some(message) = self.messages.message().await? {
            ensure!(finished.is_none(), "something came after Finished: {message:?}");
            match message.event {
                Some(Event::Delta(delta)) => {
                    text.push_str(&delta.text);
                    tokens += delta.tokens;
                }
                Some(Event::Finished(end)) => finished = Some(end),
                other => bail!("{other:?} in the middle of a stream"),
            }
        }
        let finished = finished.context("the stream ended without Finished")?;
        let expert = self.started.expert.context("Started without an expert")?;
        let usage = finished.usage.unwrap_or_default();
        ensure!(usage.completion_tokens >= tokens, "usage {usage:?}, but {tokens} tokens came");
        Ok(Answer { expert, text, reason: finished.reason(), tokens: usage.completion_tokens })
    }
}

//! A worker that follows a script: real gRPC, no model.
//!
//! It answers `NAME: TEXT` word by word, where NAME is the expert and TEXT the last message or the prompt; words that
//! begin with `!` are instructions to it. `NAME=WORD` in a text is what the expert of that name answers instead, and
//! `NAME=WORD~NUMBER` with that log-probability. Its vectors count words: texts with the same words are alike.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use futures::{Stream, StreamExt as _};
use slm_proto::{
    trailers,
    v1::{
        AdapterPhase, AdapterState, Classification, ClassifyRequest, ClassifyResponse, Completion, Delta, EmbedRequest,
        EmbedResponse, Embedding, Expert, ExpertKind, FinishReason, Finished, GenerateRequest, GenerateResponse,
        ListAdaptersRequest, ListAdaptersResponse, LoadAdapterRequest, RerankRequest, RerankResponse, Started,
        TokenLogprob, TopLogprob, UnloadAdapterRequest, UnloadAdapterResponse, Usage, WatchStateRequest, WorkerState,
        embed_input,
        embeddings_server::{Embeddings, EmbeddingsServer},
        generate_request::Input,
        generate_response::Event,
        generation_server::{Generation, GenerationServer},
        worker_control_server::{WorkerControl, WorkerControlServer},
    },
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// A running worker. Dropping it ends it.
pub(crate) struct Worker {
    pub(crate) url: String,
    pub(crate) script: Arc<Script>,
    _stop: DropGuard,
}

/// The state of a scripted worker, and a record of its requests.
pub(crate) struct Script {
    state: watch::Sender<WorkerState>,
    /// Requests to refuse with UNAVAILABLE before answering again.
    pub(crate) failures: AtomicU32,
    /// Whether it refuses every request with RESOURCE_EXHAUSTED.
    pub(crate) full: AtomicBool,
    pub(crate) requests: Mutex<Vec<(GenerateRequest, bool)>>,
    /// Streams that were dropped before their end.
    pub(crate) cancelled: watch::Sender<u32>,
    /// Streams begun.
    pub(crate) begun: watch::Sender<u32>,
    /// Streams that end with `!gate` wait for this to be true.
    pub(crate) gate: watch::Sender<bool>,
    /// Texts that it read, and for whom.
    pub(crate) embedded: Mutex<Vec<(String, String)>>,
    /// Whether it keeps requests for vectors and labels waiting for ever.
    pub(crate) hangs: AtomicBool,
}

impl Worker {
    pub(crate) async fn start(model: &str, adapters: &[&str]) -> Self {
        let state = WorkerState {
            sequence: 1,
            model: model.to_owned(),
            model_digest: "sha256:model".to_owned(),
            sequences_max: 8,
            adapters: adapters.iter().map(|name| adapter(name)).collect(),
            ..Default::default()
        };
        let script = Arc::new(Script {
            state: watch::Sender::new(state),
            failures: AtomicU32::new(0),
            full: AtomicBool::new(false),
            requests: Mutex::default(),
            cancelled: watch::Sender::new(0),
            begun: watch::Sender::new(0),
            gate: watch::Sender::new(false),
            embedded: Mutex::default(),
            hangs: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let server = Server::builder()
            .add_service(GenerationServer::new(Service(Arc::clone(&script))))
            .add_service(WorkerControlServer::new(Service(Arc::clone(&script))))
            .add_service(EmbeddingsServer::new(Service(Arc::clone(&script))))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                served = server => served.expect("the worker serves"),
                () = stopped.cancelled() => {}
            }
        });
        Self { url, script, _stop: stop.drop_guard() }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut WorkerState)) {
        self.script.state.send_modify(|state| {
            state.sequence += 1;
            change(state);
        });
    }

    pub(crate) fn load(&self, name: &str) {
        self.change(|state| state.adapters.push(adapter(name)));
    }

    pub(crate) fn asked(&self) -> usize {
        self.script.requests.lock().expect("no panic").len()
    }
}

pub(crate) fn adapter(name: &str) -> AdapterState {
    AdapterState {
        name: name.to_owned(),
        digest: format!("sha256:{name}"),
        phase: AdapterPhase::Serving.into(),
        ..Default::default()
    }
}

struct Service(Arc<Script>);

type Answers = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Generation for Service {
    type GenerateStream = Answers;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Answers>, Status> {
        let script = Arc::clone(&self.0);
        let has_deadline = request.metadata().contains_key("grpc-timeout");
        let request = request.into_inner();
        script.requests.lock().expect("no panic").push((request.clone(), has_deadline));
        if script.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(Status::unavailable("told to fail"));
        }
        if script.full.load(Ordering::Relaxed) {
            return Err(Status::resource_exhausted("told to be full"));
        }
        let text = text(&request);
        refusals(&answer(&request, &text))?;
        script.begun.send_modify(|begun| *begun += 1);
        let unfinished = Unfinished(Some(Arc::clone(&script)));
        let stream = futures::stream::unfold(
            (events(&request, &text), 0, unfinished, script),
            |(events, next, mut unfinished, script)| async move {
                let event: ScriptedEvent = events.get(next).cloned()?;
                let item = match event {
                    ScriptedEvent::Send(event) => Ok(GenerateResponse { event: Some(event) }),
                    ScriptedEvent::Fail => Err(Status::unavailable("told to break")),
                    ScriptedEvent::Gate => {
                        script.gate.subscribe().wait_for(|open| *open).await.expect("the script lives");
                        Ok(delta("through "))
                    }
                    ScriptedEvent::Never => std::future::pending().await,
                };
                if next + 1 == events.len() {
                    unfinished.0 = None;
                }
                Some((item, (events, next + 1, unfinished, script)))
            },
        );
        Ok(Response::new(stream.boxed()))
    }

    async fn complete(&self, _: Request<GenerateRequest>) -> Result<Response<Completion>, Status> {
        Err(Status::unimplemented("routers stream"))
    }
}

/// Counts a stream that is dropped before its last event.
struct Unfinished(Option<Arc<Script>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(script) = &self.0 {
            script.cancelled.send_modify(|cancelled| *cancelled += 1);
        }
    }
}

#[derive(Clone)]
enum ScriptedEvent {
    Send(Event),
    Fail,
    Gate,
    Never,
}

/// The whole answer to a request.
pub(crate) fn scripted(request: &GenerateRequest) -> Result<Vec<Result<GenerateResponse, Status>>, Status> {
    let text = text(request);
    refusals(&answer(request, &text))?;
    let events = events(request, &text).into_iter().map(|event| match event {
        ScriptedEvent::Send(event) => Ok(GenerateResponse { event: Some(event) }),
        ScriptedEvent::Fail | ScriptedEvent::Gate | ScriptedEvent::Never => Err(Status::unavailable("told to break")),
    });
    Ok(events.collect())
}

fn refusals(text: &str) -> Result<(), Status> {
    if text.contains("!full") {
        return Err(Status::resource_exhausted("the queue is full"));
    }
    if text.contains("!long") {
        let mut status = Status::invalid_argument("the prompt has 9 tokens, the context 8");
        status.metadata_mut().insert(trailers::ERROR_CODE, "context_length_exceeded".parse().expect("a word"));
        status.metadata_mut().insert(trailers::ERROR_FIELD, "messages".parse().expect("a word"));
        return Err(status);
    }
    Ok(())
}

fn events(request: &GenerateRequest, text: &str) -> Vec<ScriptedEvent> {
    let is_base = request.model == "smol";
    let expert = Expert {
        kind: if is_base { ExpertKind::SlmModel } else { ExpertKind::LoraAdapter }.into(),
        name: request.model.clone(),
        model: "smol".to_owned(),
        digest: format!("sha256:{}", request.model),
    };
    let started = Started {
        request_id: request.request_id.clone(),
        expert: Some(expert),
        prompt_tokens: 3,
        ..Started::default()
    };
    let mut events = vec![ScriptedEvent::Send(Event::Started(started))];
    for word in answer(request, text).split_whitespace() {
        match word {
            "!break" => {
                events.push(ScriptedEvent::Fail);
                return events;
            }
            "!never" => events.push(ScriptedEvent::Never),
            "!gate" => events.push(ScriptedEvent::Gate),
            // A long answer: a megabyte in a thousand pieces.
            "!much" => {
                let piece = Delta { text: "x".repeat(1024), tokens: 1, ..Default::default() };
                events.extend(vec![ScriptedEvent::Send(Event::Delta(piece)); 1024]);
            }
            word => {
                let mut delta = Delta { text: format!("{word} "), tokens: 1, ..Default::default() };
                if request.logprobs.is_some() {
                    let token = format!("{word} ").into_bytes();
                    // One expert is not sure of some answers.
                    let vague = text.contains("!vague") && request.model == "banking";
                    let own = own(request, text).and_then(|own| own.split_once('~')?.1.parse().ok());
                    let logprob = own.unwrap_or(if vague { -3.0 } else { -0.25 });
                    let top = vec![TopLogprob { id: 1, token: token.clone(), logprob }];
                    delta.logprobs.push(TokenLogprob { id: 1, token, logprob, top, special: false });
                }
                events.push(ScriptedEvent::Send(Event::Delta(delta)));
            }
        }
    }
    let usage =
        Usage { prompt_tokens: 3, completion_tokens: u32::try_from(events.len()).expect("few") - 1, cached_tokens: 2 };
    events.push(ScriptedEvent::Send(Event::Finished(Finished {
        reason: FinishReason::Stop.into(),
        usage: Some(usage),
        ..Default::default()
    })));
    events
}

/// What the text says that the expert answers.
fn own<'t>(request: &GenerateRequest, text: &'t str) -> Option<&'t str> {
    text.split_whitespace().find_map(|word| word.strip_prefix(request.model.as_str())?.strip_prefix('='))
}

fn answer(request: &GenerateRequest, text: &str) -> String {
    match own(request, text) {
        Some(own) => own.split('~').next().unwrap_or_default().to_owned(),
        None => format!("{}: {text}", request.model),
    }
}

fn delta(text: &str) -> GenerateResponse {
    GenerateResponse { event: Some(Event::Delta(Delta { text: text.to_owned(), tokens: 1, ..Default::default() })) }
}

fn text(request: &GenerateRequest) -> String {
    match &request.input {
        Some(Input::Messages(messages)) => messages.messages.last().map(|m| m.content.clone()).unwrap_or_default(),
        Some(Input::Prompt(prompt)) => prompt.clone(),
        Some(Input::TokenIds(ids)) => format!("{:?}", ids.ids),
        None => String::new(),
    }
}

/// Numbers of a scripted vector.
const DIMENSIONS: usize = 64;

#[tonic::async_trait]
impl Embeddings for Service {
    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        if self.0.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let request = request.into_inner();
        let mut embeddings = Vec::new();
        for input in &request.inputs {
            let Some(embed_input::Input::Text(text)) = &input.input else { return Err(Status::unimplemented("texts")) };
            if text.contains("!broken") {
                return Err(Status::internal("told to break"));
            }
            self.0.embedded.lock().expect("no panic").push((request.tenant.clone(), text.clone()));
            let mut values = vec![0.0; DIMENSIONS];
            for word in text.split_whitespace() {
                let place = word.bytes().fold(7, |hash: usize, byte| hash * 31 % 1009 + usize::from(byte)) % DIMENSIONS;
                values[place] += 1.0;
            }
            embeddings.push(Embedding { values });
        }
        let digest = self.0.state.borrow().model_digest.clone();
        let expert = Some(Expert { digest, ..Default::default() });
        Ok(Response::new(EmbedResponse { embeddings, expert, ..Default::default() }))
    }

    async fn rerank(&self, _: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        Err(Status::unimplemented("scripted"))
    }

    /// A head of four labels: `card` in a text is for one, `flight` for another, `poem` for a third, and `!rare` and `!unsure` say how
    /// typical the text is.
    async fn classify(&self, request: Request<ClassifyRequest>) -> Result<Response<ClassifyResponse>, Status> {
        if self.0.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let request = request.into_inner();
        let Some(Some(embed_input::Input::Text(text))) = request.inputs.first().map(|input| &input.input) else {
            return Err(Status::unimplemented("texts"));
        };
        if text.contains("!broken") {
            return Err(Status::internal("told to break"));
        }
        self.0.embedded.lock().expect("no panic").push((request.tenant.clone(), text.clone()));
        let (labels, experts) = (["balance", "transfer", "flight", "poem"], ["banking", "banking", "travel", "arts"]);
        let label =
            ["transfer", "flight", "poem"].iter().position(|word| text.contains(word)).map_or(0, |place| place + 1);
        let mut probabilities = vec![0.1; 4];
        probabilities[label] = 0.7;
        if text.contains("!garbled") {
            probabilities.pop();
        }
        let typicality = [("!rare", 0.01), ("!unsure", 0.03)].iter().find(|(word, _)| text.contains(word));
        let digest = {
            let state = self.0.state.borrow();
            let adapter = state.adapters.iter().find(|adapter| adapter.name == request.model);
            adapter.map_or_else(|| state.model_digest.clone(), |adapter| adapter.digest.clone())
        };
        Ok(Response::new(ClassifyResponse {
            classifications: vec![Classification {
                probabilities,
                typicality: Some(typicality.map_or(0.5, |(_, typicality)| *typicality)),
            }],
            labels: labels.map(str::to_owned).into(),
            experts: experts.map(str::to_owned).into(),
            expert: Some(Expert { digest, ..Default::default() }),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl WorkerControl for Service {
    type WatchStateStream = Pin<Box<dyn Stream<Item = Result<WorkerState, Status>> + Send>>;

    async fn watch_state(&self, _: Request<WatchStateRequest>) -> Result<Response<Self::WatchStateStream>, Status> {
        let states = WatchStream::new(self.0.state.subscribe());
        Ok(Response::new(states.map(Ok).boxed()))
    }

    async fn load_adapter(&self, _: Request<LoadAdapterRequest>) -> Result<Response<AdapterState>, Status> {
        Err(Status::unimplemented("scripted"))
    }

    async fn unload_adapter(
        &self,
        _: Request<UnloadAdapterRequest>,
    ) -> Result<Response<UnloadAdapterResponse>, Status> {
        Err(Status::unimplemented("scripted"))
    }

    async fn list_adapters(&self, _: Request<ListAdaptersRequest>) -> Result<Response<ListAdaptersResponse>, Status> {
        Err(Status::unimplemented("scripted"))
    }
}

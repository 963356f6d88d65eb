//! Workers that answer at once, behind mutual TLS, on threads of their own.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use futures::{Stream, StreamExt as _, stream};
use slm_proto::v1::{
    AdapterPhase, AdapterState, Classification, ClassifyRequest, ClassifyResponse, Completion, Delta, EmbedRequest,
    EmbedResponse, Expert, FinishReason, Finished, GenerateRequest, GenerateResponse, ListAdaptersRequest,
    ListAdaptersResponse, LoadAdapterRequest, RerankRequest, RerankResponse, Started, UnloadAdapterRequest,
    UnloadAdapterResponse, Usage, WatchStateRequest, WorkerState,
    embeddings_server::{Embeddings, EmbeddingsServer},
    generate_response::Event,
    generation_server::{Generation, GenerationServer},
    worker_control_server::{WorkerControl, WorkerControlServer},
};
use slm_tls::{
    Identity, Material, Pem, Tls, client,
    mint::{self, Minted},
};
use tokio::runtime::Runtime;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The certificates of a swarm.
pub(crate) struct Certificates {
    authority: Minted,
    dir: PathBuf,
}

impl Certificates {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        Ok(Self { authority: mint::authority(SystemTime::now(), LIFETIME)?, dir: dir.to_owned() })
    }

    /// The folder of the router's.
    pub(crate) fn router(&self) -> PathBuf {
        self.dir.join("router")
    }

    pub(crate) fn write_router(&self) -> Result<()> {
        let pem = self.pem(Identity::Router)?;
        for (name, bytes) in [("ca.crt", &pem.authorities), ("tls.crt", &pem.certificate), ("tls.key", &pem.key)] {
            fs::write(self.router().join(name), bytes)?;
        }
        Ok(())
    }

    fn pem(&self, identity: Identity) -> Result<Pem> {
        let leaf = mint::leaf(&self.authority, identity, SystemTime::now(), LIFETIME)?;
        let authorities = self.authority.certificate.clone().into();
        Ok(Pem { authorities, certificate: leaf.certificate.into(), key: leaf.key.into() })
    }

    fn tls(&self, identity: Identity) -> Result<Tls> {
        Ok(Tls::new(Material::read(&self.pem(identity)?, identity)?)?)
    }

    /// A connection to a worker, as a router has it.
    pub(crate) fn channel(&self, url: &str) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(url.to_owned())?;
        Ok(client::channel(&endpoint, Identity::Worker, Some(&self.tls(Identity::Router)?))?)
    }
}

/// Two workers: of the experts, and of the encoder with its head.
pub(crate) struct Workers {
    urls: [String; 2],
    runtime: Option<Runtime>,
}

impl Workers {
    pub(crate) fn start(certificates: &Certificates, experts: usize, labels: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let names = (0..experts).map(|at| format!("expert-{at}")).collect();
        let states = [state("base", "Generate", names), state("encoder", "Embed", vec!["the-head".to_owned()])];
        let mut urls = Vec::new();
        for state in states {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            urls.push(format!("https://{}", listener.local_addr()?));
            let stub = Stub(Arc::new(Script { state, labels: Labels::new(labels) }));
            let tls = certificates.tls(Identity::Worker)?;
            runtime.spawn(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let server = Server::builder()
                    .add_service(GenerationServer::new(stub.clone()))
                    .add_service(EmbeddingsServer::new(stub.clone()))
                    .add_service(WorkerControlServer::new(stub));
                server.serve_with_incoming(tls.incoming(incoming)).await?;
                Ok::<_, anyhow::Error>(())
            });
        }
        let [base, encoder] = [urls.remove(0), urls.remove(0)];
        Ok(Self { urls: [base, encoder], runtime: Some(runtime) })
    }

    pub(crate) fn base(&self) -> &str {
        &self.urls[0]
    }

    pub(crate) fn encoder(&self) -> &str {
        &self.urls[1]
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn state(model: &str, task: &str, adapters: Vec<String>) -> WorkerState {
    let adapter = |name: String| AdapterState {
        digest: format!("sha256:{name}"),
        name,
        phase: AdapterPhase::Serving.into(),
        ..AdapterState::default()
    };
    WorkerState {
        sequence: 1,
        model: model.to_owned(),
        model_digest: format!("sha256:{model}"),
        task: task.to_owned(),
        sequences_max: 1 << 16,
        adapters: adapters.into_iter().map(adapter).collect(),
        ..WorkerState::default()
    }
}

#[derive(Clone)]
struct Stub(Arc<Script>);

struct Script {
    state: WorkerState,
    labels: Labels,
}

/// Of a head: the first label is the most probable one.
struct Labels {
    names: Vec<String>,
    experts: Vec<String>,
    probabilities: Vec<f32>,
}

impl Labels {
    fn new(count: usize) -> Self {
        let probability = |at: usize| if at == 0 { 0.9 } else { 0.1 / count as f32 };
        Self {
            names: (0..count).map(|at| format!("label_{at}")).collect(),
            experts: (0..count).map(|at| format!("expert-{}", at % 10)).collect(),
            probabilities: (0..count).map(probability).collect(),
        }
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Generation for Stub {
    type GenerateStream = Streamed<GenerateResponse>;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let GenerateRequest { model, request_id, .. } = request.into_inner();
        let expert = Some(Expert { digest: format!("sha256:{model}"), name: model, ..Expert::default() });
        let started = Started { request_id, expert, prompt_tokens: 12, ..Started::default() };
        let usage = Some(Usage { prompt_tokens: 12, completion_tokens: 1, ..Usage::default() });
        let finished = Finished { reason: FinishReason::Stop.into(), usage, ..Finished::default() };
        let delta = Delta { text: "transfer".to_owned(), tokens: 1, ..Delta::default() };
        let events = [Event::Started(started), Event::Delta(delta), Event::Finished(finished)];
        Ok(Response::new(stream::iter(events.map(|event| Ok(GenerateResponse { event: Some(event) }))).boxed()))
    }

    async fn complete(&self, _: Request<GenerateRequest>) -> Result<Response<Completion>, Status> {
        Err(Status::unimplemented("routers stream"))
    }
}

#[tonic::async_trait]
impl Embeddings for Stub {
    async fn embed(&self, _: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        Err(Status::unimplemented("the route has a head"))
    }

    async fn rerank(&self, _: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        Err(Status::unimplemented("the route has a head"))
    }

    async fn classify(&self, request: Request<ClassifyRequest>) -> Result<Response<ClassifyResponse>, Status> {
        let ClassifyRequest { model, inputs, .. } = request.into_inner();
        let Labels { names, experts, probabilities } = &self.0.labels;
        let classification = Classification { probabilities: probabilities.clone(), typicality: Some(0.5) };
        Ok(Response::new(ClassifyResponse {
            classifications: vec![classification; inputs.len()],
            labels: names.clone(),
            experts: experts.clone(),
            expert: Some(Expert { digest: format!("sha256:{model}"), name: model, ..Expert::default() }),
            ..ClassifyResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl WorkerControl for Stub {
    type WatchStateStream = Streamed<WorkerState>;

    async fn watch_state(&self, _: Request<WatchStateRequest>) -> Result<Response<Self::WatchStateStream>, Status> {
        let state = self.0.state.clone();
        Ok(Response::new(stream::once(async { Ok(state) }).chain(stream::pending()).boxed()))
    }

    async fn load_adapter(&self, _: Request<LoadAdapterRequest>) -> Result<Response<AdapterState>, Status> {
        Err(Status::unimplemented("everything is loaded"))
    }

    async fn unload_adapter(
        &self,
        _: Request<UnloadAdapterRequest>,
    ) -> Result<Response<UnloadAdapterResponse>, Status> {
        Err(Status::unimplemented("everything stays loaded"))
    }

    async fn list_adapters(&self, _: Request<ListAdaptersRequest>) -> Result<Response<ListAdaptersResponse>, Status> {
        Err(Status::unimplemented("the state says it"))
    }
}

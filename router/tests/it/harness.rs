//! A router on ports of its own.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use slm_router::{Bound, Config, Limits, ReadyWhen, RunError, Swarm};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::worker::Worker;

pub(crate) struct Router {
    pub(crate) bound: Bound,
    pub(crate) swarm: watch::Sender<Arc<Swarm>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) ended: JoinHandle<Result<(), RunError>>,
    pub(crate) client: reqwest::Client,
}

/// Limits under which a test that fails fails soon.
pub(crate) fn limits() -> Limits {
    Limits { wait_max: Duration::from_secs(20), drain: Duration::from_secs(20), ..Limits::default() }
}

/// Any ports, plain text, everybody.
pub(crate) fn config(limits: Limits) -> Config {
    let any = "127.0.0.1:0".parse().expect("an address");
    Config {
        http: any,
        grpc: any,
        tls: None,
        access: None,
        page: true,
        origins: Vec::new(),
        probes: None,
        ready_when: ReadyWhen::Complete,
        withdraw: Duration::ZERO,
        data_policy: slm_crds::route::DataPolicy::AllowExternal,
        secrets: slm_retrieve::secrets::Secrets::default(),
        limits,
    }
}

/// Model `smol` on these workers, adapters `banking` and `travel`, route `assistant`.
pub(crate) fn swarm(workers: &[&Worker]) -> Swarm {
    let urls: Vec<&str> = workers.iter().map(|worker| worker.url.as_str()).collect();
    serde_json::from_value(json!({
        "generation": 1,
        "models": [{"name": "smol", "expert": {"description": "The base."}, "workers": urls}],
        "adapters": [{"name": "banking", "model": "smol"}, {"name": "travel", "model": "smol"}],
        "routes": [{"name": "assistant", "spec": {
            "rules": [
                {"when": "text.matches('(?i)\\\\b(account|card)\\\\b')", "to": {"kind": "LoraAdapter", "name": "banking"}},
                {"when": "has(metadata.topic) && metadata.topic == 'travel'", "to": {"kind": "LoraAdapter", "name": "travel"}},
            ],
            "fallback": {"kind": "SlmModel", "name": "smol"},
        }}],
    }))
    .expect("a swarm")
}

impl Router {
    pub(crate) async fn start(swarm: Swarm, limits: Limits) -> Self {
        Self::with(swarm, config(limits)).await
    }

    pub(crate) async fn with(swarm: Swarm, config: Config) -> Self {
        let (sender, receiver) = watch::channel(Arc::new(swarm));
        let (bound_sender, bound) = oneshot::channel();
        let shutdown = CancellationToken::new();
        let ended = tokio::spawn(slm_router::run(config, receiver, shutdown.clone(), bound_sender));
        let bound = bound.await.expect("both ports");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { bound, swarm: sender, shutdown, ended, client }
    }

    /// One worker that holds everything, and a router that is ready.
    pub(crate) async fn over_one_worker() -> (Self, Worker) {
        let worker = Worker::start("smol", &["banking", "travel"]).await;
        let router = Self::start(swarm(&[&worker]), limits()).await;
        router.ready().await;
        (router, worker)
    }

    pub(crate) async fn grpc(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.bound.grpc)).expect("an address");
        endpoint.connect().await.expect("a connection")
    }

    pub(crate) async fn ready(&self) {
        self.health(ServingStatus::Serving).await;
    }

    pub(crate) async fn health(&self, status: ServingStatus) {
        let mut client = HealthClient::new(self.grpc().await);
        let request = HealthCheckRequest { service: "slm.v1.Generation".to_owned() };
        let mut statuses = client.watch(request).await.expect("health").into_inner();
        while statuses.message().await.expect("health").expect("health").status() != status {}
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.bound.http)
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> reqwest::Response {
        self.client.post(self.url(path)).json(&body).send().await.expect("an answer")
    }

    pub(crate) async fn raw(&self, path: &str) -> reqwest::Response {
        self.client.get(self.url(path)).send().await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.raw(path).await;
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }
}

pub(crate) fn chat(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

pub(crate) fn streamed(model: &str, text: &str) -> Value {
    let mut body = chat(model, text);
    body["stream"] = true.into();
    body
}

/// The events of a stream, without `data: `.
pub(crate) fn events(text: &str) -> Vec<String> {
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    events.map(|event| event.strip_prefix("data: ").expect("an event").to_owned()).collect()
}

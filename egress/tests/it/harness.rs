//! A running egress, and a client of it.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use slm_egress::{Bound, Config, Externals, RunError, Secrets, Sink};
use slm_proto::v1::{
    Completion, ExternalRequest, GenerateRequest, Message, Messages, WatchStateRequest, WorkerState,
    egress_client::EgressClient, generate_request::Input, generate_response::Event,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming, transport::Channel};

pub(crate) struct Egress {
    pub(crate) client: EgressClient<Channel>,
    pub(crate) bound: Bound,
    pub(crate) externals: watch::Sender<Arc<Externals>>,
    pub(crate) ended: JoinHandle<Result<(), RunError>>,
    pub(crate) stop: DropGuard,
}

pub(crate) fn config() -> Config {
    let any = "127.0.0.1:0".parse().expect("an address");
    Config {
        grpc: any,
        tls: None,
        probes: Some(any),
        secrets: Secrets::None,
        audit: Sink::Log,
        audit_content: false,
        drain: Duration::from_secs(20),
    }
}

/// The model `large` at this URL; `more` is put into its spec.
pub(crate) fn large(url: &str, more: &Value) -> Externals {
    let mut spec = json!({ "url": url, "model": "gpt", "timeoutSeconds": 20 });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    serde_json::from_value(json!({ "generation": 1, "externals": [{ "name": "large", "spec": spec }] }))
        .expect("a spec")
}

impl Egress {
    pub(crate) async fn start(externals: Externals, config: Config) -> Self {
        let (sender, receiver) = watch::channel(Arc::new(externals));
        let (bound_sender, bound) = oneshot::channel();
        let stop = CancellationToken::new();
        let ended = tokio::spawn(slm_egress::run(config, receiver, stop.clone(), bound_sender));
        let bound = bound.await.expect("a port");
        let client = EgressClient::connect(format!("http://{}", bound.grpc)).await.expect("a connection");
        Self { client, bound, externals: sender, ended, stop: stop.drop_guard() }
    }

    /// One whose `large` may be asked.
    pub(crate) async fn of(url: &str, more: Value) -> Self {
        let egress = Self::start(large(url, &more), config()).await;
        egress.until(|names| names == ["large"]).await;
        egress
    }

    pub(crate) async fn states(&self) -> Streaming<WorkerState> {
        self.client.clone().watch_state(WatchStateRequest {}).await.expect("states").into_inner()
    }

    /// Waits until the models that may be asked are as they should be.
    pub(crate) async fn until(&self, wanted: impl Fn(&[String]) -> bool) {
        let mut states = self.states().await;
        loop {
            let state = states.message().await.expect("a state").expect("a state");
            let names: Vec<String> = state.adapters.into_iter().map(|adapter| adapter.name).collect();
            if wanted(&names) {
                return;
            }
        }
    }

    /// The whole answer.
    pub(crate) async fn ask(&self, request: ExternalRequest) -> Result<Completion, Status> {
        let mut stream = self.client.clone().generate(request).await?.into_inner();
        let mut completion = Completion::default();
        while let Some(response) = stream.message().await? {
            match response.event.expect("an event") {
                Event::Started(started) => completion.started = Some(started),
                Event::Delta(delta) => completion.add(delta),
                Event::Finished(finished) => completion.finish(finished),
            }
        }
        Ok(completion)
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.bound.probes.expect("probes"));
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        client.get(url).send().await.expect("metrics").text().await.expect("text")
    }
}

/// A question to `large`.
pub(crate) fn question(text: &str) -> ExternalRequest {
    let message = Message { role: "user".to_owned(), content: text.to_owned(), ..Message::default() };
    let request = GenerateRequest {
        model: "large".to_owned(),
        input: Some(Input::Messages(Messages { messages: vec![message] })),
        request_id: "r1".to_owned(),
        ..GenerateRequest::default()
    };
    ExternalRequest {
        request: Some(request),
        redact: false,
        caller: "team".to_owned(),
        route: "assistant".to_owned(),
        reason: "no rule matched: fallback".to_owned(),
    }
}

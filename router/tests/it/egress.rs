//! A scripted egress: what it is asked it answers as a scripted worker does, and keeps a record of it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt as _};
use slm_proto::v1::{
    Cost, ExternalRequest, GenerateResponse, WatchStateRequest, WorkerState,
    egress_server::{Egress, EgressServer},
    generate_response::Event,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::worker::{adapter, scripted};

/// A running egress, which asks `large`. Dropping it ends it.
pub(crate) struct ScriptedEgress {
    pub(crate) url: String,
    state: watch::Sender<WorkerState>,
    asked: Arc<Mutex<Vec<ExternalRequest>>>,
    _stop: DropGuard,
}

struct Service {
    state: watch::Receiver<WorkerState>,
    asked: Arc<Mutex<Vec<ExternalRequest>>>,
}

impl ScriptedEgress {
    pub(crate) async fn start() -> Self {
        let (state, states) = watch::channel(WorkerState {
            sequence: 1,
            sequences_max: 8,
            adapters: vec![adapter("large")],
            ..Default::default()
        });
        let asked = Arc::<Mutex<Vec<ExternalRequest>>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let server = Server::builder()
            .add_service(EgressServer::new(Service { state: states, asked: Arc::clone(&asked) }))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                served = server => served.expect("the egress serves"),
                () = stopped.cancelled() => {}
            }
        });
        Self { url, state, asked, _stop: stop.drop_guard() }
    }

    /// What left, since this was called last.
    pub(crate) fn left(&self) -> Vec<ExternalRequest> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }

    /// It stops asking `large`, as when a circuit opens.
    pub(crate) fn open_circuit(&self) {
        self.state.send_modify(|state| {
            state.sequence += 1;
            state.adapters.clear();
        });
    }
}

#[tonic::async_trait]
impl Egress for Service {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;
    type WatchStateStream = Pin<Box<dyn Stream<Item = Result<WorkerState, Status>> + Send>>;

    async fn generate(&self, request: Request<ExternalRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let external = request.into_inner();
        self.asked.lock().expect("no panic").push(external.clone());
        let mut answer = scripted(&external.request.expect("a request"))?;
        if let Some(Ok(GenerateResponse { event: Some(Event::Finished(finished)) })) = answer.last_mut() {
            finished.cost = Some(Cost { amount: 0.25, currency: "EUR".to_owned() });
        }
        Ok(Response::new(futures::stream::iter(answer).boxed()))
    }

    async fn watch_state(&self, _: Request<WatchStateRequest>) -> Result<Response<Self::WatchStateStream>, Status> {
        Ok(Response::new(WatchStream::new(self.state.clone()).map(Ok).boxed()))
    }
}

//! The one client of a worker's state stream (`WatchState`), for routers, the operator and `slm up`.
//!
//! Guarantees: a worker that dies in silence is noticed within [`PING_INTERVAL`] and [`PING_TIMEOUT`] together; a broken
//! stream is opened again after a pause that doubles up to a bound, with jitter, and is the first again once a state has
//! come. A state is the worker's whole state, so nothing has to be remembered across a break. Which worker, and which
//! incarnation of it, is for the caller to keep: one stream belongs to one address.

use std::{error::Error as _, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use slm_backoff::Backoff;
use slm_proto::v1::{
    WatchStateRequest, WorkerState, egress_client::EgressClient, worker_control_client::WorkerControlClient,
};
use slm_tls::cause::innermost;
use tonic::{
    Response, Status, Streaming,
    transport::{Channel, Endpoint, Error},
};

/// Time for a TCP connection and its TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between HTTP/2 pings, also while no request runs.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A worker that answers no ping for this long is gone, even if its machine never said so.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The endpoint of a worker at `url`, with the deadlines of every connection to one.
///
/// # Errors
/// A URL that is malformed.
pub fn endpoint(url: String) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(url)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// Who is asked for its states.
#[derive(Clone, Debug)]
enum Peer {
    Worker(WorkerControlClient<Channel>),
    Egress(EgressClient<Channel>),
}

impl Peer {
    async fn watch(&mut self) -> Result<Response<Streaming<WorkerState>>, Status> {
        match self {
            Self::Worker(client) => client.watch_state(WatchStateRequest {}).await,
            Self::Egress(client) => client.watch_state(WatchStateRequest {}).await,
        }
    }
}

/// A worker's states, one after the other, across breaks of the stream.
#[derive(Debug)]
pub struct StateStream {
    peer: Peer,
    open: Option<Streaming<WorkerState>>,
    broken: bool,
    backoff: Backoff,
}

impl StateStream {
    /// A stream over `channel`, opened at the first call of [`next`](Self::next). Pauses between attempts double from
    /// `pause_min` to `pause_max`.
    #[must_use]
    pub fn new(channel: Channel, pauses: (Duration, Duration)) -> Self {
        Self::of(Peer::Worker(WorkerControlClient::new(channel)), pauses)
    }

    /// The same of an egress.
    #[must_use]
    pub fn of_egress(channel: Channel, pauses: (Duration, Duration)) -> Self {
        Self::of(Peer::Egress(EgressClient::new(channel)), pauses)
    }

    fn of(peer: Peer, (pause_min, pause_max): (Duration, Duration)) -> Self {
        Self { peer, open: None, broken: false, backoff: Backoff::new(pause_min, pause_max) }
    }

    /// The next state. After a break, pauses and opens the stream again.
    ///
    /// # Errors
    /// The reason of a break, once for every failed attempt. The stream goes on with the next call. A panic counts as a
    /// break, too.
    pub async fn next(&mut self) -> Result<WorkerState, String> {
        if self.broken {
            tokio::time::sleep(self.backoff.pause()).await;
            self.broken = false;
        }
        let panicked = |_| Err("reading its state stream panicked; the log says where".to_owned());
        let state = AssertUnwindSafe(self.message()).catch_unwind().await.unwrap_or_else(panicked);
        if state.is_ok() {
            self.backoff.reset();
        } else {
            self.open = None;
            self.broken = true;
        }
        state
    }

    async fn message(&mut self) -> Result<WorkerState, String> {
        let states = match &mut self.open {
            Some(states) => states,
            None => {
                let states = self.peer.watch().await.map_err(|status| reason(&status))?;
                self.open.insert(states.into_inner())
            }
        };
        let state = states.message().await.map_err(|status| reason(&status))?;
        state.ok_or_else(|| "the worker ended its state stream".to_owned())
    }
}

/// The reason of a failed call: "connection refused" rather than "transport error".
fn reason(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), innermost)
}

#[cfg(test)]
mod tests {
    use futures::{
        StreamExt as _,
        stream::{self, BoxStream},
    };
    use slm_proto::v1::{
        AdapterState, ListAdaptersRequest, ListAdaptersResponse, LoadAdapterRequest, UnloadAdapterRequest,
        UnloadAdapterResponse,
        worker_control_server::{WorkerControl, WorkerControlServer},
    };
    use tokio::net::TcpListener;
    use tonic::{Request, Response, transport::Server};

    use super::*;

    const RECONNECT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));

    /// A worker whose state streams end after one state.
    struct Worker;

    #[tonic::async_trait]
    impl WorkerControl for Worker {
        type WatchStateStream = BoxStream<'static, Result<WorkerState, Status>>;

        async fn watch_state(&self, _: Request<WatchStateRequest>) -> Result<Response<Self::WatchStateStream>, Status> {
            let state = WorkerState { model: "smol".to_owned(), ..Default::default() };
            Ok(Response::new(stream::iter([Ok(state)]).boxed()))
        }

        async fn load_adapter(&self, _: Request<LoadAdapterRequest>) -> Result<Response<AdapterState>, Status> {
            Err(Status::unimplemented("only states"))
        }

        async fn unload_adapter(
            &self,
            _: Request<UnloadAdapterRequest>,
        ) -> Result<Response<UnloadAdapterResponse>, Status> {
            Err(Status::unimplemented("only states"))
        }

        async fn list_adapters(
            &self,
            _: Request<ListAdaptersRequest>,
        ) -> Result<Response<ListAdaptersResponse>, Status> {
            Err(Status::unimplemented("only states"))
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_is_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = stream::unfold(listener, |listener| async {
            let connection = listener.accept().await.map(|(connection, _)| connection);
            Some((connection, listener))
        });
        let server = Server::builder().add_service(WorkerControlServer::new(Worker));
        tokio::spawn(server.serve_with_incoming(connections));
        let channel = endpoint(format!("http://{address}")).unwrap().connect_lazy();
        let mut states = StateStream::new(channel, RECONNECT);
        for _ in 0..3 {
            assert_eq!(states.next().await.unwrap().model, "smol");
            assert_eq!(states.next().await, Err("the worker ended its state stream".to_owned()));
        }
    }

    #[tokio::test]
    async fn every_failed_attempt_names_its_cause() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let channel = endpoint(format!("http://{address}")).unwrap().connect_lazy();
        let mut states = StateStream::new(channel, RECONNECT);
        for _ in 0..3 {
            let cause = states.next().await.unwrap_err();
            assert!(cause.contains("refused"), "{cause}");
        }
    }
}

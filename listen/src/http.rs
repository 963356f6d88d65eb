//! HTTP/1.1 and HTTP/2 over connections with deadlines and a limit on their number.

use std::time::Duration;

use axum::Router;
use futures::StreamExt as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Connections, Limits};

/// Silence after which an HTTP/2 peer is asked whether it is there, and how long it has to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of all headers of one request.
const HEADERS_BYTES_MAX: u32 = 64 << 10;
/// Requests at once on one HTTP/2 connection; more wait at the peer.
const STREAMS_MAX: u32 = 256;

/// Serves until `shutdown`, then until the last answer ends.
pub async fn serve(mut connections: Connections, routes: Router, limits: Limits, shutdown: CancellationToken) {
    let builder = builder(limits);
    let graceful = GracefulShutdown::new();
    let tasks = TaskTracker::new();
    loop {
        let connection = tokio::select! {
            connection = connections.next() => connection,
            () = shutdown.cancelled() => break,
        };
        let connection = match connection {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection failed before its first request");
                continue;
            }
            None => break,
        };
        let service = TowerToHyperService::new(routes.clone());
        let served = graceful.watch(builder.serve_connection(TokioIo::new(connection), service).into_owned());
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(error, "a connection ended");
            }
        });
    }
    drop(connections);
    tasks.close();
    graceful.shutdown().await;
    tasks.wait().await;
}

fn builder(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Also of the next request on a connection that is kept open.
        .header_read_timeout(limits.headers)
        .max_buf_size(HEADERS_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX);
    builder
}

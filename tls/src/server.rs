//! Server side: accepted connections after their handshakes. Here those of callers with a certificate of the swarm; in
//! `public` those of any caller.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::{Identity, Tls};

/// Longest duration of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bound on concurrent handshakes; further connections wait in the listen queue.
const HANDSHAKES_MAX: usize = 1024;

/// Peer of a connection: in the extensions of every request that arrives over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Role in the peer's certificate. `None`: a certificate of the swarm without a role, or, at a public endpoint, any
    /// caller.
    pub identity: Option<Identity>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Tls {
    /// Connections of callers with a certificate of the swarm. Other callers fail the handshake, which is logged and
    /// never ends the stream. Handshakes run concurrently: a slow one delays no other.
    pub fn incoming<S>(&self, connections: S) -> impl Stream<Item = io::Result<Accepted>> + Send + use<S>
    where
        S: Stream<Item = io::Result<TcpStream>> + Send,
    {
        // Inside a swarm a refused caller is a sign of a problem.
        incoming(Arc::clone(&self.server), connections, |address, why| {
            tracing::info!(address, why, "caller refused");
        })
    }
}

/// `refused` is called with the address of a caller that fails the handshake, and the reason.
pub(crate) fn incoming<S>(
    config: Arc<ServerConfig>,
    connections: S,
    refused: fn(&str, &str),
) -> impl Stream<Item = io::Result<Accepted>> + Send + use<S>
where
    S: Stream<Item = io::Result<TcpStream>> + Send,
{
    let acceptor = TlsAcceptor::from(config);
    connections
        .map(move |connection| {
            let acceptor = acceptor.clone();
            async move {
                match connection {
                    Ok(connection) => accept(&acceptor, connection, refused).await.map(Ok),
                    Err(error) => Some(Err(error)),
                }
            }
        })
        .buffer_unordered(HANDSHAKES_MAX)
        .filter_map(std::future::ready)
}

async fn accept(acceptor: &TlsAcceptor, connection: TcpStream, refused: fn(&str, &str)) -> Option<Accepted> {
    let address = connection.peer_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(connection)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            refused(&address, &format!("no handshake: {error}"));
            return None;
        }
        Err(_) => {
            refused(&address, &format!("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs()));
            return None;
        }
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = Peer { identity: certificate.and_then(Identity::of) };
    Some(Accepted { stream, peer })
}

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

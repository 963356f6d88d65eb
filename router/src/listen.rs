//! Ports, and the connections that come to them: plain, or after their handshake.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use slm_tls::{public::Public, server::Accepted};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::transport::server::Connected;

use crate::{config::Limits, timed::Timed};

/// A port that could not be had.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Someone has it.
    #[error("the {endpoint} address {address} is in use; end what listens there, or choose another address")]
    InUse {
        /// HTTP or gRPC.
        endpoint: &'static str,
        /// As configured.
        address: SocketAddr,
    },
    /// Anything else, such as an address that is not this machine's.
    #[error("cannot listen on the {endpoint} address {address}: {reason}")]
    Other {
        /// HTTP or gRPC.
        endpoint: &'static str,
        /// As configured.
        address: SocketAddr,
        /// The system's words.
        reason: io::Error,
    },
}

/// An open port.
pub(crate) struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) address: SocketAddr,
}

pub(crate) async fn bind(endpoint: &'static str, address: SocketAddr) -> Result<Listener, ListenError> {
    let other = |reason: io::Error| match reason.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { endpoint, address },
        _ => ListenError::Other { endpoint, address, reason },
    };
    let tcp = TcpListener::bind(address).await.map_err(other)?;
    let address = tcp.local_addr().map_err(other)?;
    Ok(Listener { tcp, address })
}

/// What both doors serve: a connection that is ready to be read, and whose peer has to do its part in time.
pub(crate) type Connection = Timed<Socket>;

/// Plain, or after its handshake.
pub(crate) struct Socket {
    transport: Transport,
    /// Counts it as open.
    _permit: Option<OwnedSemaphorePermit>,
}

enum Transport {
    Plain(TcpStream),
    Secure(Box<Accepted>),
}

/// The connections of a door. It has no end.
pub(crate) struct Connections(BoxStream<'static, io::Result<Connection>>);

impl Listener {
    /// Over TLS, if there is some. At most `limits.connections_max` at a time: further ones wait in the system's queue.
    pub(crate) fn connections(self, tls: Option<&Public>, limits: &Limits) -> Connections {
        let accepted = stream::unfold(self.tcp, |mut tcp| async {
            // axum's accept goes on whatever happens.
            let (connection, _) = axum::serve::Listener::accept(&mut tcp).await;
            // Without it a token waits for the acknowledgement of the one before.
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
            Some((Ok(connection), tcp))
        });
        let transports = match tls {
            None => accepted.map(|connection| connection.map(Transport::Plain)).boxed(),
            Some(tls) => {
                let secure = |accepted| Transport::Secure(Box::new(accepted));
                tls.incoming(accepted).map(move |accepted| accepted.map(secure)).boxed()
            }
        };
        let permits = Arc::new(Semaphore::new(limits.connections_max));
        let (greeting, stall_max) = (limits.headers, limits.reader_idle);
        let connections = transports.then(move |transport| {
            let permits = Arc::clone(&permits);
            async move {
                if permits.available_permits() == 0 {
                    tracing::warn!("as many connections are open as may be; further ones wait until some end");
                }
                // The semaphore is never closed.
                let permit = permits.acquire_owned().await.ok();
                transport.map(|transport| Timed::new(Socket { transport, _permit: permit }, greeting, stall_max))
            }
        });
        Connections(connections.boxed())
    }
}

/// For tonic.
impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Secure(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Secure(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Secure(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Secure(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Transport::Secure(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Secure(stream) => stream.is_write_vectored(),
        }
    }
}

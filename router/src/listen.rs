//! Ports, and the connections that come to them: plain, or after their handshake.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
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
};
use tonic::transport::server::Connected;

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

/// What both doors serve: a connection that is ready to be read.
pub(crate) enum Connection {
    Plain(TcpStream),
    Secure(Box<Accepted>),
}

/// The connections of a door. It has no end.
pub(crate) struct Connections(BoxStream<'static, io::Result<Connection>>);

impl Listener {
    /// Over TLS, if there is some.
    pub(crate) fn connections(self, tls: Option<&Public>) -> Connections {
        let accepted = stream::unfold(self.tcp, |mut tcp| async {
            // axum's accept goes on whatever happens.
            let (connection, _) = axum::serve::Listener::accept(&mut tcp).await;
            // Without it a token waits for the acknowledgement of the one before.
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
            Some((Ok(connection), tcp))
        });
        Connections(match tls {
            None => accepted.map(|connection| connection.map(Connection::Plain)).boxed(),
            Some(tls) => {
                let secure = |accepted| Connection::Secure(Box::new(accepted));
                tls.incoming(accepted).map(move |accepted| accepted.map(secure)).boxed()
            }
        })
    }
}

/// For tonic.
impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// For axum.
impl axum::serve::Listener for Connections {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        loop {
            match self.0.next().await {
                Some(Ok(connection)) => return (connection, ()),
                Some(Err(error)) => tracing::debug!(%error, "a connection that is none"),
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Secure(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Secure(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Secure(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Secure(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }
}

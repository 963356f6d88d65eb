//! Accepted connections of a port: plain, or after their TLS handshake.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use slm_tls::{public::Public, server::Accepted};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::transport::server::Connected;

use crate::{Limits, Listener, timed::Timed};

/// A connection that is ready to be read, and whose peer has to do its part in time.
pub type Connection = Timed<Socket>;

/// Plain, or after its handshake.
pub struct Socket {
    transport: Transport,
    /// Counts it as open.
    _permit: Option<OwnedSemaphorePermit>,
}

enum Transport {
    Plain(TcpStream),
    Secure(Box<Accepted>),
}

/// The connections of a port. It has no end.
pub struct Connections(BoxStream<'static, io::Result<Connection>>);

impl Listener {
    /// Accepted connections, after their handshake where there is TLS. At most `limits.connections` at a time; further ones wait in
    /// the system's backlog.
    pub fn connections(self, tls: Option<&Public>, limits: Limits) -> Connections {
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
        let permits = Arc::new(Semaphore::new(limits.connections));
        let (greeting, stall_max) = (limits.headers, limits.stall);
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

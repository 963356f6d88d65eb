//! Client side: gRPC channels to processes of the swarm.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};
use tower::Service;

use crate::{Identity, Tls};

/// An address whose scheme does not fit the TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// An https address without certificates.
    #[error("{0}: an https address needs a certificate of the swarm; give --tls, or an http address")]
    NoCertificate(Uri),
    /// An http address although certificates are configured.
    #[error("{0}: with --tls, only https addresses are allowed")]
    Plain(Uri),
}

/// A channel to a process of role `to` at the endpoint's address, which connects on first use: `https` with `tls`,
/// `http` without. The server must prove its role, whatever its address.
///
/// # Errors
/// Scheme and `tls` do not fit: there is no fallback to plain text.
pub fn channel(endpoint: &Endpoint, to: Identity, tls: Option<&Tls>) -> Result<Channel, AddressError> {
    match (endpoint.uri().scheme_str() == Some("https"), tls) {
        (true, Some(tls)) => Ok(endpoint.connect_with_connector_lazy(tls.connector(to))),
        (false, None) => Ok(endpoint.connect_lazy()),
        (true, None) => Err(AddressError::NoCertificate(endpoint.uri().clone())),
        (false, Some(_)) => Err(AddressError::Plain(endpoint.uri().clone())),
    }
}

impl Tls {
    fn connector(&self, to: Identity) -> Connector {
        Connector { client: Arc::clone(&self.client), to: Some(to) }
    }
}

/// Opens connections for a channel.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) client: Arc<ClientConfig>,
    /// Role that the server must prove; without it, the host name of the address.
    pub(crate) to: Option<Identity>,
}

type Connection = TokioIo<TlsStream<TcpStream>>;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Connection>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connector, to) = (TlsConnector::from(Arc::clone(&self.client)), self.to);
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let connection = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
            connection.set_nodelay(true)?;
            let name = to.map_or(host, |to| to.dns_name()).to_owned();
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            Ok(TokioIo::new(connector.connect(name, connection).await?))
        })
    }
}

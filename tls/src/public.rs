//! Server side of the public endpoint: TLS 1.2 or 1.3 without client certificates.
//!
//! The certificate may be of a public authority, of a private one, or self-signed. Only its key is checked; trust is
//! the callers' decision.

use std::{fmt, io, sync::Arc};

use arc_swap::ArcSwap;
use futures::Stream;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;

use crate::{
    MaterialError, material,
    server::{self, Accepted},
};

/// A certificate and its key, replaceable at any time. Clones share it.
#[derive(Clone, Debug)]
pub struct Public {
    live: Arc<LiveCertificate>,
    config: Arc<ServerConfig>,
}

/// Certificate of a public endpoint.
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// Reads `tls.crt` and `tls.key`, as PEM.
    ///
    /// # Errors
    /// Names the part.
    pub fn read(certificate: &[u8], key: &[u8]) -> Result<Self, MaterialError> {
        Ok(Self(Arc::new(material::certified(certificate, key)?)))
    }
}

impl Public {
    /// A configuration that starts with `certificate` and offers the protocols of `alpn`, best first.
    ///
    /// # Errors
    /// ring does not support TLS: the build is broken.
    pub fn new(certificate: Certificate, alpn: &[&[u8]]) -> Result<Self, MaterialError> {
        let live = Arc::new(LiveCertificate(ArcSwap::new(certificate.0)));
        let mut config = ServerConfig::builder_with_provider(material::provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(MaterialError::Provider)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&live) as _);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { live, config: Arc::new(config) })
    }

    /// The same certificate, including later replacements, for other protocols.
    #[must_use]
    pub fn speaking(&self, alpn: &[&[u8]]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Self { live: Arc::clone(&self.live), config: Arc::new(config) }
    }

    /// Uses `certificate` for handshakes from now on; open connections stay.
    pub fn replace(&self, certificate: Certificate) {
        self.live.0.store(certificate.0);
    }

    /// Connections after their handshakes. Handshakes run concurrently: a slow one delays no other, and a failed one
    /// never ends the stream.
    pub fn incoming<S>(&self, connections: S) -> impl Stream<Item = io::Result<Accepted>> + Send + use<S>
    where
        S: Stream<Item = io::Result<TcpStream>> + Send,
    {
        // Scanners and load balancers fail handshakes all day.
        server::incoming(Arc::clone(&self.config), connections, |address, why| {
            tracing::debug!(address, why, "caller refused");
        })
    }
}

struct LiveCertificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Hides the key.
impl fmt::Debug for LiveCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LiveCertificate")
    }
}

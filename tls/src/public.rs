//! The public end: callers prove nothing in the handshake and speak TLS 1.2 or 1.3.
//!
//! The certificate is whatever its owner has put there: of a public authority, of a company's own, or self-signed. It is
//! looked at no further than that its key fits; whether callers trust it is theirs to say.

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
    live: Arc<CurrentCertificate>,
    config: Arc<ServerConfig>,
}

/// What a public endpoint shows to its callers.
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// Of `tls.crt` and `tls.key`, as PEM.
    ///
    /// # Errors
    /// Names the part.
    pub fn read(certificate: &[u8], key: &[u8]) -> Result<Self, MaterialError> {
        Ok(Self(Arc::new(material::certified(certificate, key)?)))
    }
}

impl Public {
    /// Begins with `certificate`, and offers the protocols of `alpn`, best first.
    ///
    /// # Errors
    /// When ring does not know TLS: the build is broken.
    pub fn new(certificate: Certificate, alpn: &[&[u8]]) -> Result<Self, MaterialError> {
        let live = Arc::new(CurrentCertificate(ArcSwap::new(certificate.0)));
        let mut config = ServerConfig::builder_with_provider(material::provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(MaterialError::Provider)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&live) as _);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { live, config: Arc::new(config) })
    }

    /// The same certificate, now and whenever it is replaced, for other protocols.
    #[must_use]
    pub fn speaking(&self, alpn: &[&[u8]]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Self { live: Arc::clone(&self.live), config: Arc::new(config) }
    }

    /// Handshakes from now on show `certificate`; connections that are open stay as they are.
    pub fn replace(&self, certificate: Certificate) {
        self.live.0.store(certificate.0);
    }

    /// Connections after their handshakes. Handshakes run side by side: a slow one holds nobody up, and one that fails
    /// never ends the stream.
    pub fn incoming<S>(&self, connections: S) -> impl Stream<Item = io::Result<Accepted>> + Send + use<S>
    where
        S: Stream<Item = io::Result<TcpStream>> + Send,
    {
        // In public that is what scanners and load balancers do all day.
        server::incoming(Arc::clone(&self.config), connections, |address, why| {
            tracing::debug!(address, why, "caller refused");
        })
    }
}

struct CurrentCertificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Without the key.
impl fmt::Debug for CurrentCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CurrentCertificate")
    }
}

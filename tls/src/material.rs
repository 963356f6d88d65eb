//! Certificates in the form that handshakes use.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::Identity;

/// Certificate, key and authorities as PEM, as in a Secret of type kubernetes.io/tls.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// `ca.crt`: the trusted authorities.
    pub authorities: Vec<u8>,
    /// `tls.crt`: the process's certificate.
    pub certificate: Vec<u8>,
    /// `tls.key`: the certificate's key.
    pub key: Vec<u8>,
}

/// Reason why the PEM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// Not PEM, or without an item of the expected type.
    #[error("{part}: {source}")]
    Pem {
        /// `ca.crt`, `tls.crt` or `tls.key`.
        part: &'static str,
        /// Error of the PEM parser.
        source: pem::Error,
    },
    /// No certificate in it.
    #[error("{part}: has no certificate")]
    Empty {
        /// `ca.crt` or `tls.crt`.
        part: &'static str,
    },
    /// A trusted certificate is not a valid authority.
    #[error("ca.crt: {0}")]
    Authority(rustls::Error),
    /// No verifier can be built from the authorities.
    #[error("ca.crt: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// The key does not fit the certificate, or its type is not supported.
    #[error("tls.crt and tls.key: {0}")]
    Key(rustls::Error),
    /// The certificate has another role.
    #[error("tls.crt: is not that of the {wanted} ({}) of a swarm; mount the Secret of the {wanted}", wanted.dns_name())]
    Identity {
        /// Role that the certificate should have.
        wanted: Identity,
    },
    /// The build is broken.
    #[error("no TLS 1.3: {0}")]
    Provider(rustls::Error),
}

/// A certificate with its key, and the authorities that others are checked against.
#[derive(Debug)]
pub struct Material {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    pub(crate) servers: Arc<WebPkiServerVerifier>,
}

impl Material {
    /// Checks everything that can be checked without a peer: all parts are present, fit together, and have the role
    /// `identity`.
    ///
    /// # Errors
    /// Names the part.
    pub fn read(pem: &Pem, identity: Identity) -> Result<Self, MaterialError> {
        let chain = certificates("tls.crt", &pem.certificate)?;
        if chain.first().and_then(Identity::of) != Some(identity) {
            return Err(MaterialError::Identity { wanted: identity });
        }
        let key = certified(&pem.certificate, &pem.key)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("ca.crt", &pem.authorities)? {
            roots.add(authority).map_err(MaterialError::Authority)?;
        }
        let roots = Arc::new(roots);
        Ok(Self {
            key: Arc::new(key),
            clients: WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider()).build()?,
            servers: WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?,
        })
    }
}

/// A certificate with its key.
pub(crate) fn certified(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, MaterialError> {
    let chain = certificates("tls.crt", certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| MaterialError::Pem { part: "tls.key", source })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(MaterialError::Key)
}

/// The ring provider, explicitly: a process may hold several providers, and none is the default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn certificates(part: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|source| MaterialError::Pem { part, source })?;
    if all.is_empty() { Err(MaterialError::Empty { part }) } else { Ok(all) }
}

//! Client side for callers outside the swarm: TLS to its public endpoint.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use tonic::transport::{Channel, Endpoint};

use crate::{ALPN, MaterialError, client::Connector, material};

/// Certificates that a caller accepts from the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Any certificate for the address by an authority that this system trusts.
    System,
    /// Exactly this certificate, under any address.
    Exactly(CertificateDer<'static>),
}

/// Reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TLS could not be configured.
    #[error(transparent)]
    Tls(#[from] MaterialError),
    /// The connection failed.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
}

impl Trust {
    /// Trusts the first certificate of this PEM, such as the endpoint's `tls.crt`.
    ///
    /// # Errors
    /// There is no certificate in it.
    pub fn pem(pem: &[u8]) -> Result<Self, MaterialError> {
        let first = material::certificates("PEM", pem)?.into_iter().next();
        first.map(Self::Exactly).ok_or(MaterialError::Empty { part: "PEM" })
    }

    /// An open channel to `endpoint`, whose scheme is `https`.
    ///
    /// # Errors
    /// The endpoint is unreachable, or its certificate is not trusted.
    pub async fn connect(self, endpoint: &Endpoint) -> Result<Channel, ConnectError> {
        let builder = ClientConfig::builder_with_provider(material::provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(MaterialError::Provider)?;
        let mut client = match self {
            Self::System => {
                let mut roots = RootCertStore::empty();
                // An unreadable certificate is not trusted.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Self::Exactly(certificate) => builder
                .dangerous() // No authority is asked: the certificate itself was handed over.
                .with_custom_certificate_verifier(Arc::new(Exactly { certificate, provider: material::provider() }))
                .with_no_client_auth(),
        };
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(endpoint.connect_with_connector(Connector { client: Arc::new(client), to: None }).await?)
    }
}

#[derive(Debug)]
struct Exactly {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *certificate == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

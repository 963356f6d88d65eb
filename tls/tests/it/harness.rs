//! Certificates, and a gRPC server behind them.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use slm_tls::{
    Identity, Material, Pem, Tls, client,
    mint::{self, Minted},
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::HealthReporter,
};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn authority() -> Minted {
    mint::authority(SystemTime::now(), HOUR).unwrap()
}

/// A certificate of `identity` by `issuer`, trusting `bundle`.
pub(crate) fn pem(issuer: &Minted, bundle: &[&Minted], identity: Identity) -> Pem {
    let leaf = mint::leaf(issuer, identity, SystemTime::now(), HOUR).unwrap();
    let authorities: String = bundle.iter().map(|authority| authority.certificate.as_str()).collect();
    Pem { authorities: authorities.into(), certificate: leaf.certificate.into(), key: leaf.key.into() }
}

pub(crate) fn material(issuer: &Minted, bundle: &[&Minted], identity: Identity) -> Material {
    Material::read(&pem(issuer, bundle, identity), identity).unwrap()
}

pub(crate) fn tls(issuer: &Minted, identity: Identity) -> Tls {
    Tls::new(material(issuer, &[issuer], identity)).unwrap()
}

/// A server of gRPC health, until it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) health: HealthReporter,
    _task: AbortOnDropHandle<()>,
}

pub(crate) async fn serve(tls: &Tls) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tls.incoming(TcpIncoming::from(listener));
    let (health, service) = tonic_health::server::health_reporter();
    let task = tokio::spawn(async move {
        Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    Served { address, health, _task: AbortOnDropHandle::new(task) }
}

pub(crate) fn channel(address: SocketAddr, to: Identity, tls: &Tls) -> Channel {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    client::channel(&endpoint.connect_timeout(Duration::from_secs(10)), to, Some(tls)).unwrap()
}

pub(crate) async fn call(channel: Channel) -> Result<(), Status> {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(|_| ())
}

/// Every cause of a status in one line.
pub(crate) fn words(status: &Status) -> String {
    let mut words = status.to_string();
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}

/// Shakes hands by hand, with a certificate or none: the server's certificate, or what was said against us.
pub(crate) async fn knock(
    address: SocketAddr,
    trusted: &Minted,
    own: Option<&Pem>,
) -> std::io::Result<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(&own.certificate).unwrap()],
                PrivateKeyDer::from_pem_slice(&own.key).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(Identity::Worker.dns_name()).unwrap();
    let connection = TcpStream::connect(address).await?;
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, connection).await?;
    // In TLS 1.3 a client hears only after its own handshake that it was refused; HTTP/2 servers speak first.
    stream.read_u8().await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
}

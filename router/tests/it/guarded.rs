//! A router that needs tokens, and callers that have some.

use std::{fs, io, net::SocketAddr, os::unix::fs::symlink, path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::TLS13,
};
use serde_json::Value;
use slm_router::Config;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    harness::{Router, config, limits, swarm},
    worker::Worker,
};

/// May name everything.
pub(crate) const OPS: &str = "ops-0123456789abcdef";
/// May name `banking` and the route.
pub(crate) const TEAM: &str = "team-0123456789abcdef";
/// SHA-256 of `OPS`.
const OPS_SHA256: &str = "fcf13faded0e9df625f23e8c9d318fdb1bf7e6456a3c7ef9f0b2cc3187e274ae";

pub(crate) struct Guarded {
    pub(crate) router: Router,
    pub(crate) worker: Worker,
    pub(crate) folder: TempDir,
    pub(crate) certificate: Certificate,
}

/// Self-signed, for `models.example.com`.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    pub(crate) key: String,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let params = CertificateParams::new(vec!["models.example.com".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, key: key.serialize_pem() }
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM")
    }
}

pub(crate) fn tokens() -> String {
    format!("- name: ops\n  sha256: {OPS_SHA256}\n- name: team\n  token: {TEAM}\n  models: [bank*, assistant]\n")
}

/// As the kubelet does it: a new folder, a link to it in the place of the former, the former removed.
pub(crate) fn mount(folder: &Path, version: u32, certificate: &Certificate, tokens: &str) {
    let data = folder.join(format!("..{version}"));
    fs::create_dir(&data).expect("a folder");
    for (name, text) in [("tls.crt", &*certificate.pem), ("tls.key", &certificate.key), ("tokens.yaml", tokens)] {
        fs::write(data.join(name), text).expect("a file");
    }
    let former = fs::canonicalize(folder.join("..data"));
    symlink(&data, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("a link");
    if let Ok(former) = former {
        fs::remove_dir_all(former).expect("the former");
    }
}

pub(crate) fn guarded_config(folder: &Path) -> Config {
    let probes = Some("127.0.0.1:0".parse().expect("an address"));
    Config { access: Some(folder.to_owned()), probes, ..config(limits()) }
}

impl Guarded {
    /// Over one worker that holds everything.
    pub(crate) async fn start() -> Self {
        Self::with(&tokens()).await
    }

    /// The same with this list of tokens.
    pub(crate) async fn with(tokens: &str) -> Self {
        let (folder, certificate) = (tempfile::tempdir().expect("a folder"), Certificate::new());
        mount(folder.path(), 0, &certificate, tokens);
        let worker = Worker::start("smol", &["banking", "travel"]).await;
        let mut router = Router::with(swarm(&[&worker]), guarded_config(folder.path())).await;
        router.client = client(&certificate, router.bound.http);
        let guarded = Self { router, worker, folder, certificate };
        while guarded.get("/readyz", None).await.0 != 200 {}
        guarded
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://models.example.com:{}{path}", self.router.bound.http.port())
    }

    pub(crate) async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> reqwest::Response {
        let request = self.router.client.post(self.url(path)).json(body);
        let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        request.send().await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let request = self.router.client.get(self.url(path));
        let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    }

    pub(crate) async fn grpc(&self) -> Channel {
        let (address, certificate) = (self.router.bound.grpc, self.certificate.der());
        let connector = tower::service_fn(move |_| {
            let certificate = certificate.clone();
            async move { io::Result::Ok(TokioIo::new(knock(address, &certificate, &TLS13, &["h2"]).await?)) }
        });
        let endpoint = Endpoint::from_static("https://models.example.com");
        endpoint.connect_with_connector(connector).await.expect("a connection")
    }
}

/// Trusts one certificate and finds `models.example.com` at this address.
pub(crate) fn client(certificate: &Certificate, address: SocketAddr) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(certificate.pem.as_bytes()).expect("PEM");
    let builder = reqwest::Client::builder().no_proxy().tls_built_in_root_certs(false).add_root_certificate(root);
    builder.resolve("models.example.com", address).build().expect("a client")
}

/// A handshake of a caller that trusts this certificate.
pub(crate) async fn knock(
    address: SocketAddr,
    certificate: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    alpn: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("models.example.com").map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

/// With `authorization` as a gRPC client sends it.
pub(crate) fn authorized<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value: MetadataValue<Ascii> = format!("Bearer {token}").parse().expect("a value");
        request.metadata_mut().insert("authorization", value);
    }
    request
}

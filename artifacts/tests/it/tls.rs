//! TLS, with a CA of our own.

use std::{fs, sync::Arc};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use slm_artifacts::{Source, Store};
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use crate::common::{config, fetch};

#[tokio::test]
async fn a_ca_file_is_trusted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://localhost:{}/x.gguf", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let app = TowerToHyperService::new(Router::new().fallback(|| async { "content" }));
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), app).await;
            });
        }
    });
    let mut config = config(&dir.path().join("cache"));
    let error = fetch(&Store::open(config.clone()).unwrap(), &Source::new(&uri)).await.unwrap_err();
    assert_eq!(error.reason(), "Unreachable");
    assert!(error.to_string().contains("certificate"), "{error}");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, "no certificate").unwrap();
    config.ca_file = Some(ca.clone());
    let error = Store::open(config.clone()).unwrap_err();
    assert!(error.to_string().ends_with("ca.pem: holds no certificate; expected PEM"), "{error}");
    fs::write(&ca, key.cert.pem()).unwrap();
    let artifact = fetch(&Store::open(config).unwrap(), &Source::new(&uri)).await.unwrap();
    assert_eq!(fs::read(artifact.path()).unwrap(), b"content");
}

//! The public endpoint, and those who call it.

use slm_tls::{
    Identity,
    outward::Trust,
    public::{Certificate, Public},
};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Endpoint, Server, server::TcpIncoming};

use crate::harness::{authority, call, pem};

#[tokio::test]
async fn a_caller_trusts_exactly_the_certificate_that_it_was_given() {
    let swarm = authority();
    let [first, second] = [(), ()].map(|()| pem(&swarm, &[&swarm], Identity::Worker));
    let certificate = |pem: &slm_tls::Pem| Certificate::read(&pem.certificate, &pem.key).unwrap();
    let public = Public::new(certificate(&first), &[b"h2"]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::from_shared(format!("https://{}", listener.local_addr().unwrap())).unwrap();
    let (reporter, health) = tonic_health::server::health_reporter();
    let incoming = public.incoming(TcpIncoming::from(listener));
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        let _reporter = reporter;
        Server::builder().add_service(health).serve_with_incoming(incoming).await
    }));

    // Its names and its authority do not matter.
    let trusting = Trust::pem(&first.certificate).unwrap();
    let former = trusting.clone().connect(&endpoint).await.unwrap();
    call(former.clone()).await.unwrap();
    for other in [Trust::pem(&second.certificate).unwrap(), Trust::System] {
        other.connect(&endpoint).await.unwrap_err();
    }
    // Replaced: whoever trusts the former only is out, and who is in stays.
    public.replace(certificate(&second));
    trusting.connect(&endpoint).await.unwrap_err();
    call(Trust::pem(&second.certificate).unwrap().connect(&endpoint).await.unwrap()).await.unwrap();
    call(former).await.unwrap();
}

#[test]
fn a_file_without_a_certificate_is_refused() {
    let refused = Trust::pem(b"nothing").unwrap_err();
    assert_eq!(refused.to_string(), "PEM: has no certificate");
}

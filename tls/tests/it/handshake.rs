//! Callers that may connect, and those that may not.

use slm_tls::{Identity, Material, MaterialError, client};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::transport::Endpoint;

use crate::harness::{authority, call, channel, knock, pem, serve, tls, words};

#[tokio::test]
async fn those_of_one_swarm_speak_to_each_other() {
    let swarm = authority();
    let served = serve(&tls(&swarm, Identity::Worker)).await;
    for identity in [Identity::Operator, Identity::Router] {
        call(channel(served.address, Identity::Worker, &tls(&swarm, identity))).await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let swarm = authority();
    let served = serve(&tls(&swarm, Identity::Worker)).await;
    let refused = knock(served.address, &swarm, None).await.unwrap_err();
    assert!(refused.to_string().contains("CertificateRequired"), "{refused}");

    // One that does not even speak TLS gets no HTTP/2, and neither does one that says nothing hold anybody up.
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let plain = Endpoint::from_shared(format!("http://{}", served.address)).unwrap().connect_lazy();
    call(plain).await.unwrap_err();
    call(channel(served.address, Identity::Worker, &tls(&swarm, Identity::Router))).await.unwrap();
    // The silent one is dropped in the end.
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn another_swarm_is_refused_on_either_side() {
    let (ours, theirs) = (authority(), authority());
    let served = serve(&tls(&ours, Identity::Worker)).await;
    // The caller does not trust the worker.
    let refused = call(channel(served.address, Identity::Worker, &tls(&theirs, Identity::Router))).await.unwrap_err();
    assert!(words(&refused).contains("UnknownIssuer"), "{}", words(&refused));
    // The worker does not trust the caller.
    let foreign = pem(&theirs, &[&ours], Identity::Router);
    let refused = knock(served.address, &ours, Some(&foreign)).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownCA"), "{refused}");
}

#[tokio::test]
async fn a_role_is_not_another() {
    let swarm = authority();
    let served = serve(&tls(&swarm, Identity::Worker)).await;
    // Somebody else than was looked for.
    let refused = call(channel(served.address, Identity::Operator, &tls(&swarm, Identity::Router))).await.unwrap_err();
    assert!(words(&refused).contains("not valid for name"), "{}", words(&refused));
    // A worker's certificate is for being called, a router's for calling.
    let worker = pem(&swarm, &[&swarm], Identity::Worker);
    knock(served.address, &swarm, Some(&worker)).await.unwrap_err();
    let posing = serve(&tls(&swarm, Identity::Router)).await;
    let refused = call(channel(posing.address, Identity::Router, &tls(&swarm, Identity::Operator))).await.unwrap_err();
    assert!(words(&refused).contains("invalid peer certificate"), "{}", words(&refused));
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused_by_name() {
    let (swarm, other) = (authority(), authority());
    let whole = pem(&swarm, &[&swarm], Identity::Worker);
    let refused = |change: fn(&mut slm_tls::Pem, &slm_tls::Pem)| {
        let mut broken = whole.clone();
        change(&mut broken, &pem(&other, &[&other], Identity::Worker));
        Material::read(&broken, Identity::Worker).unwrap_err().to_string()
    };
    assert!(refused(|pem, other| pem.key = other.key.clone()).starts_with("tls.crt and tls.key: "));
    assert!(refused(|pem, _| pem.key.clear()).starts_with("tls.key: "));
    assert!(refused(|pem, _| pem.authorities.clear()).starts_with("ca.crt: has no certificate"));
    assert!(refused(|pem, _| pem.certificate = b"-----BEGIN".to_vec()).starts_with("tls.crt: "));
    let whose = Material::read(&whole, Identity::Router).unwrap_err();
    assert!(matches!(whose, MaterialError::Identity { wanted: Identity::Router }), "{whose}");
}

#[tokio::test]
async fn nothing_falls_back_to_plain_text() {
    let tls = tls(&authority(), Identity::Router);
    let [plain, secure] = ["http://10.0.0.1:9090", "https://10.0.0.1:9090"].map(Endpoint::from_static);
    let refused = client::channel(&plain, Identity::Worker, Some(&tls)).unwrap_err();
    assert!(refused.to_string().contains("only https"), "{refused}");
    let refused = client::channel(&secure, Identity::Worker, None).unwrap_err();
    assert!(refused.to_string().contains("give --tls"), "{refused}");
}

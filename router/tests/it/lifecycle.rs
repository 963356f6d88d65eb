//! From the first port to the last stream.

use std::{sync::Arc, time::Duration};

use slm_router::{Config, ReadyWhen, Swarm};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::{
    harness::{Router, chat, limits, streamed, swarm},
    worker::{Worker, adapter},
};

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let worker = Worker::start("smol", &["banking"]).await;
    let mut wanted = swarm(&[&worker]);
    wanted.adapters[0].digest = "sha256:new".to_owned();
    let router = Router::start(wanted, limits()).await;
    // The worker is connected once its adapters are looked at.
    let missing = loop {
        let (status, readiness) = router.get("/readyz").await;
        assert_eq!(status, 503);
        if readiness["missing"][0]["kind"] == "LoraAdapter" && readiness.to_string().contains("still serves") {
            break readiness["missing"].clone();
        }
    };
    assert_eq!(missing[0]["name"], "banking");
    assert!(missing[1]["why"].as_str().is_some_and(|why| why.contains("has not loaded travel")), "{missing}");
    router.health(ServingStatus::NotServing).await;

    worker.change(|state| {
        state.adapters[0].digest = "sha256:new".to_owned();
        state.adapters.push(adapter("travel"));
    });
    router.ready().await;
    let (status, readiness) = router.get("/readyz").await;
    assert_eq!((status, readiness.to_string()), (200, r#"{"ready":true,"generation":1,"missing":[]}"#.to_owned()));
}

#[tokio::test]
async fn nothing_is_unknown_before_the_first_snapshot() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let router = Router::start(Swarm::default(), limits()).await;
    let waiting = router.post("/v1/chat/completions", chat("smol", "hi"));
    let arriving = async {
        let (_, readiness) = router.get("/readyz").await;
        assert_eq!(readiness["missing"][0]["why"], "no snapshot has come yet");
        router.swarm.send_replace(Arc::new(swarm(&[&worker])));
    };
    let (answer, ()) = tokio::join!(waiting, arriving);
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_shutdown_lets_running_streams_finish() {
    let (router, worker) = Router::over_one_worker().await;
    let response = router.post("/v1/chat/completions", streamed("smol", "one !gate two")).await;
    let Router { shutdown, ended, .. } = router;
    shutdown.cancel();
    worker.script.gate.send_replace(true);
    let text = response.text().await.expect("the whole stream");
    assert!(text.contains("two ") && text.ends_with("data: [DONE]\n\n"), "{text}");
    ended.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_router_ends_with_its_parent() {
    let (router, _worker) = Router::over_one_worker().await;
    let Router { swarm, ended, client, .. } = router;
    drop((swarm, client));
    ended.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let worker = Worker::start("smol", &["banking", "travel"]).await;
    let short = slm_router::Limits { drain: std::time::Duration::from_millis(50), ..limits() };
    let router = Router::start(swarm(&[&worker]), short).await;
    let _open = router.post("/v1/chat/completions", streamed("smol", "one !never")).await;
    router.shutdown.cancel();
    router.ended.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address");
    let config = Config {
        http: address,
        grpc: "127.0.0.1:0".parse().expect("an address"),
        tls: None,
        access: None,
        page: false,
        origins: Vec::new(),
        probes: None,
        ready_when: ReadyWhen::Complete,
        withdraw: Duration::ZERO,
        data_policy: slm_crds::route::DataPolicy::AllowExternal,
        secrets: slm_retrieve::secrets::Secrets::default(),
        limits: limits(),
    };
    let (_swarm, receiver) = watch::channel(Arc::new(Swarm::default()));
    let (bound, _) = oneshot::channel();
    let error = slm_router::run(config, receiver, CancellationToken::new(), bound).await.expect_err("taken");
    let expected = format!("the HTTP address {address} is in use; end what listens there, or choose another address");
    assert_eq!(error.to_string(), expected);
}

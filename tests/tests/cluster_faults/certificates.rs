//! Who gets in where workers listen, and how that changes while everything runs.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use slm_proto::v1::{LoadAdapterRequest, WatchStateRequest, worker_control_client::WorkerControlClient as Control};
use slm_tests::{
    cluster::{Steady, client, instances, kubectl, secret, signal, until, wait_ready, worker_channel, workers},
    swarm::Call,
};
use slm_tls::{Identity, Pem, mint};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// Whether a worker speaks with whom has `channel`.
async fn watched(channel: Channel) -> Result<(), Status> {
    Control::new(channel).watch_state(WatchStateRequest {}).await?.into_inner().message().await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_refuses_who_is_not_of_the_swarm() -> Result<()> {
    wait_ready()?;
    let ip = workers()?.into_iter().next().context("a worker")?.ip;

    let plain = Endpoint::from_shared(format!("http://{ip}:9090"))?.connect_lazy();
    assert!(watched(plain).await.is_err(), "in plain text");

    // Right in every respect, but another authority's.
    let hour = Duration::from_secs(3600);
    let foreign = mint::authority(SystemTime::now(), hour)?;
    let leaf = mint::leaf(&foreign, Identity::Operator, SystemTime::now(), hour)?;
    let swarm = secret(Identity::Operator)?;
    let stranger = Pem { certificate: leaf.certificate.into(), key: leaf.key.into(), ..swarm.clone() };
    assert!(watched(worker_channel(&ip, &stranger, Identity::Operator)?).await.is_err(), "a foreign certificate");

    // Somebody of the swarm, but not for this.
    let router = worker_channel(&ip, &secret(Identity::Router)?, Identity::Router)?;
    watched(router.clone()).await?;
    let request = LoadAdapterRequest { name: "smuggled".into(), ..Default::default() };
    let denied = Control::new(router).load_adapter(request).await.expect_err("a router loads nothing");
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    let worker = worker_channel(&ip, &secret(Identity::Worker)?, Identity::Worker)?;
    assert!(watched(worker).await.is_err(), "workers call nobody");

    watched(worker_channel(&ip, &swarm, Identity::Operator)?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_certificates_are_renewed_under_load() -> Result<()> {
    let steady = Steady::begin().await?;
    let former = secret(Identity::Router)?;
    // As a person asks for a new authority.
    let begun = Instant::now();
    kubectl(&["delete", "secret", "slm-swarm-ca"])?;
    let renewed = until("certificates of a new authority alone", || {
        let now = secret(Identity::Router)?;
        let alone = String::from_utf8_lossy(&now.authorities).matches("BEGIN CERTIFICATE").count() == 1;
        Ok((alone && now.authorities != former.authorities).then_some(now))
    })
    .await?;
    println!("a new authority, from its introduction to the end of the former: {:?}", begun.elapsed());
    // They have reached every worker: it shows the new one, and takes the former no more.
    for worker in workers()? {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        while watched(worker_channel(&worker.ip, &renewed, Identity::Router)?).await.is_err()
            || watched(worker_channel(
                &worker.ip,
                &Pem { authorities: renewed.authorities.clone(), ..former.clone() },
                Identity::Router,
            )?)
            .await
            .is_ok()
        {
            ticks.tick().await;
            assert!(begun.elapsed() < Duration::from_secs(240), "{} still trusts the former authority", worker.name);
        }
    }
    println!("on every worker after {:?}", begun.elapsed());
    steady.more(16).await;
    let load = steady.stop().await;
    println!("certificates renewed: {} answers, {} failed", load.answers, load.failures.len());
    assert!(load.failures.is_empty(), "{:?}", load.failures);

    // Operator and routers shake hands anew, with what they have now.
    // Of those that crash often the kubelet keeps away for longer each time.
    let worker = workers()?.into_iter().min_by_key(|pod| pod.restarts).context("a worker")?;
    let expected = instances("banking")?.len();
    signal(&worker.name, Signal::SIGKILL)?;
    until("its container to run again", || {
        let now = workers()?.into_iter().find(|pod| pod.name == worker.name);
        Ok(now.filter(|pod| pod.restarts > worker.restarts && pod.ready).map(|_| ()))
    })
    .await?;
    until("its adapters", || Ok((instances("banking")?.len() == expected).then_some(()))).await?;
    let client = client()?;
    for _ in 0..8 {
        client.ask(&Call::new("banking", "put a freeze on my bank account right now")).await?;
    }
    Ok(())
}

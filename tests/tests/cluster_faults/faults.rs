//! Things that break under eight steady streams.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use slm_tests::cluster::{
    RELEASE, Steady, adapter_manifest, apply, cluster, instances, kubectl, pods, push_adapter, signal, until, workers,
};
use slm_tests::swarm::quickstart_adapter;

/// Failures that a caller can make sense of: the worker that it was on has gone.
fn are_clear(failures: &[String]) -> bool {
    failures.iter().all(|failure| failure.contains("the connection to the worker broke"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_in_place_gets_its_adapters_back() -> Result<()> {
    let steady = Steady::begin().await?;
    // Of those that crash often the kubelet keeps away for longer each time.
    let worker = workers()?.into_iter().min_by_key(|pod| pod.restarts).context("a worker")?;
    let expected = instances("banking")?.len();
    signal(&worker.name, Signal::SIGKILL)?;
    until("its container to run again", || {
        let now = workers()?.into_iter().find(|pod| pod.name == worker.name);
        Ok(now.filter(|pod| pod.restarts > worker.restarts && pod.running).map(|_| ()))
    })
    .await?;
    let running = Instant::now();
    // Ready is what has its adapters: the readiness gate.
    until("its adapters", || {
        let now = workers()?.into_iter().find(|pod| pod.name == worker.name);
        let ready = now.is_some_and(|pod| pod.restarts > worker.restarts && pod.ready);
        Ok((ready && instances("banking")?.len() == expected).then_some(()))
    })
    .await?;
    println!("adapters back {:?} after the container runs", running.elapsed());
    steady.more(16).await;
    let load = steady.stop().await;
    println!("worker killed: {} answers, {} failed", load.answers, load.failures.len());
    // Four of eight streams were on it, on average.
    assert!(load.failures.len() <= 8 && are_clear(&load.failures), "{:?}", load.failures);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_away_is_not_missed() -> Result<()> {
    let steady = Steady::begin().await?;
    cluster(&["apiserver", "stop"])?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        steady.more(8).await;
    }
    cluster(&["apiserver", "start"])?;
    let uri = push_adapter(&quickstart_adapter("kitchen"), "late:1")?;
    apply(&adapter_manifest("late", &uri))?;
    let begun = Instant::now();
    until("the operator to catch up", || Ok((!instances("late")?.is_empty()).then_some(()))).await?;
    println!("caught up {:?} after the API server was back", begun.elapsed());
    let load = steady.stop().await;
    println!("API server away for 60 s: {} answers, {} failed", load.answers, load.failures.len());
    assert!(load.failures.is_empty(), "{:?}", load.failures);
    kubectl(&["delete", "lora", "late"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_are_rolled_without_a_failed_stream() -> Result<()> {
    let steady = Steady::begin().await?;
    let deployment = format!("deployment/{RELEASE}-slm-swarm-router");
    kubectl(&["rollout", "restart", &deployment])?;
    kubectl(&["rollout", "status", &deployment, "--timeout=180s"])?;
    until("the former routers to be gone", || {
        let routers = pods("app.kubernetes.io/name=slm-router")?;
        Ok((routers.len() == 2 && routers.iter().all(|pod| pod.ready)).then_some(()))
    })
    .await?;
    steady.more(16).await;
    let load = steady.stop().await;
    println!("routers rolled: {} answers, {} failed", load.answers, load.failures.len());
    assert!(load.failures.is_empty(), "{:?}", load.failures);
    Ok(())
}

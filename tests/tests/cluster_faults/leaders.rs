//! The operator that leads goes away: callers notice nothing, and another one goes on.

use std::time::Instant;

use anyhow::Result;
use nix::sys::signal::Signal;
use slm_tests::{
    cluster::{Steady, adapter_manifest, apply, instances, kubectl, push_adapter, signal, until},
    swarm::quickstart_adapter,
};

fn leader() -> Result<String> {
    kubectl(&["get", "lease", "slm-operator", "-o", "jsonpath={.spec.holderIdentity}"])
}

/// Applies an adapter with `orphan` as its name, and waits until it is loaded.
async fn work_goes_on(what: &str) -> Result<()> {
    let uri = push_adapter(&quickstart_adapter("kitchen"), "orphan:1")?;
    let begun = Instant::now();
    apply(&adapter_manifest("orphan", &uri))?;
    until("work to go on", || Ok((!instances("orphan")?.is_empty()).then_some(()))).await?;
    println!("{what}: work goes on after {:?}", begun.elapsed());
    kubectl(&["delete", "lora", "orphan"]).map(|_| ())
}

async fn unnoticed(what: &str, steady: Steady) -> Result<()> {
    steady.more(16).await;
    let load = steady.stop().await;
    println!("{what}: {} answers, {} failed", load.answers, load.failures.len());
    assert!(load.failures.is_empty(), "{:?}", load.failures);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_not_missed() -> Result<()> {
    let steady = Steady::begin().await?;
    signal(&leader()?, Signal::SIGKILL)?;
    work_goes_on("leader killed").await?;
    unnoticed("leader killed", steady).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_is_replaced_and_does_not_come_back() -> Result<()> {
    let steady = Steady::begin().await?;
    let former = leader()?;
    signal(&former, Signal::SIGSTOP)?;
    let went_on = work_goes_on("leader hung").await;
    let next = leader()?;
    // It finds itself replaced. Before that, the kubelet may have ended it.
    signal(&former, Signal::SIGCONT)?;
    went_on?;
    assert_ne!(former, next);
    work_goes_on("former leader back").await?;
    assert_eq!(leader()?, next, "the former leader took the lease back");
    unnoticed("leader hung", steady).await
}

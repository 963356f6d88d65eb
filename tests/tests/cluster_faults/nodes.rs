//! Nodes that go, in order and without a word.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use slm_tests::{
    cluster::{Steady, client, cluster, instances, kubectl, kubectl_json, pods, until, wait_ready, workers},
    swarm::Call,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_takes_no_stream_with_it() -> Result<()> {
    let steady = Steady::begin().await?;
    let node = workers()?.into_iter().next().context("a worker")?.node;
    kubectl(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s"])?;
    steady.more(16).await;
    let load = steady.stop().await;
    kubectl(&["uncordon", &node])?;
    println!("node drained: {} answers, {} failed", load.answers, load.failures.len());
    assert!(load.failures.is_empty(), "{:?}", load.failures);
    Ok(())
}

/// Both nodes have a worker and a router, as after an installation: earlier tests may have moved them together.
async fn spread() -> Result<()> {
    for selector in ["slmswarm.io/model=smollm2", "app.kubernetes.io/name=slm-router"] {
        let nodes: Vec<_> = pods(selector)?.into_iter().map(|pod| pod.node).collect();
        let Some(crowded) = nodes.first().filter(|first| nodes.iter().all(|node| node == *first)) else { continue };
        let pod = pods(selector)?.into_iter().next().context("a pod")?.name;
        kubectl(&["cordon", crowded])?;
        let deleted = kubectl(&["delete", "pod", &pod]);
        let moved = until("a pod on the other node", || {
            let now = pods(selector)?;
            let there = now.iter().all(|pod| pod.ready) && now.iter().any(|pod| pod.node != *crowded);
            Ok((there && now.len() == nodes.len()).then_some(()))
        })
        .await;
        kubectl(&["uncordon", crowded])?;
        deleted?;
        moved?;
    }
    wait_ready()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_takes_only_its_own_streams() -> Result<()> {
    wait_ready()?;
    spread().await?;
    let on_node1 = instances("banking")?.len();
    let steady = Steady::begin().await?;
    let lost = Instant::now();
    cluster(&["node", "stop", "node1"])?;
    steady.more(16).await;
    println!("16 more answers {:?} after the cable was pulled", lost.elapsed());
    // Nobody is sent there any more once the cluster knows.
    until("the cluster to notice", || {
        let node = kubectl_json(&["get", "node", "node1"])?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] != "True").then_some(()))
    })
    .await?;
    println!("the cluster noticed after {:?}", lost.elapsed());
    let noticed = steady.failed().len();
    steady.more(16).await;
    let load = steady.stop().await;
    println!(
        "node lost: {} answers, {} failed, {} of them after it was noticed",
        load.answers,
        load.failures.len(),
        load.failures.len() - noticed
    );
    // A caller is told, or gets the right answer.
    assert!(!load.failures.iter().any(|failure| failure.contains("another answer")), "{:?}", load.failures);
    cluster(&["node", "start", "node1"])?;
    until("its worker, with its adapters", || Ok((instances("banking")?.len() >= on_node1).then_some(()))).await?;
    wait_ready()?;
    let client = client()?;
    for _ in 0..16 {
        let answer = client.ask(&Call::new("banking", "put a freeze on my bank account right now")).await?;
        ensure!(answer.text.trim() == "freeze_account", "{answer:?}");
    }
    Ok(())
}

//! Models that change while they serve.

use anyhow::Result;
use slm_tests::cluster::{MODEL, Steady, kubectl, router, until, wait_ready, workers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_rolled_without_a_failed_stream() -> Result<()> {
    wait_ready()?;
    let before = workers()?;
    let steady = Steady::start(&format!("http://{}", router("grpc")?), "banking").await?;
    // Another revision that answers the same.
    let patch = "{\"spec\":{\"rollout\":{\"drainTimeoutSeconds\":45}}}";
    kubectl(&["patch", "slm", MODEL, "--type=merge", "-p", patch])?;
    until("the former workers to be gone", || {
        let now = workers()?;
        let replaced = now.iter().all(|pod| pod.ready && !before.iter().any(|former| former.name == pod.name));
        Ok((now.len() == before.len() && replaced).then_some(()))
    })
    .await?;
    steady.more(16).await;
    let load = steady.stop().await;
    println!("model rolled: {} answers, {} failed", load.answers, load.failures.len());
    assert!(load.failures.is_empty(), "{:?}", load.failures);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_scaled_as_any_workload() -> Result<()> {
    wait_ready()?;
    let before = workers()?.len();
    kubectl(&["scale", "slm", MODEL, &format!("--replicas={}", before + 1)])?;
    until("one more worker", || Ok((workers()?.iter().filter(|pod| pod.ready).count() == before + 1).then_some(())))
        .await?;
    wait_ready()?;
    kubectl(&["scale", "slm", MODEL, &format!("--replicas={before}")])?;
    until("the former number", || Ok((workers()?.len() == before).then_some(()))).await?;
    wait_ready()
}

//! The chart's own life: upgraded and rolled back while it serves.

use anyhow::Result;
use slm_tests::cluster::{RELEASE, Steady, helm, kubectl, until, wait_ready};

fn router_log_level() -> Result<String> {
    let path = "jsonpath={.spec.template.spec.containers[0].env[?(@.name==\"RUST_LOG\")].value}";
    kubectl(&["get", "deployment", &format!("{RELEASE}-slm-swarm-router"), "-o", path])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chart_is_upgraded_and_rolled_back_without_a_failed_stream() -> Result<()> {
    let steady = Steady::begin().await?;
    let chart = "charts/slm-swarm";
    let set = ["--set", "router.log=debug", "--set", "operator.log=debug"];
    helm(&[&["upgrade", RELEASE, chart, "--reset-then-reuse-values", "--wait", "--timeout=180s"], &set[..]].concat())?;
    assert_eq!(router_log_level()?, "debug");
    steady.more(16).await;
    helm(&["rollback", RELEASE, "--wait", "--timeout=180s"])?;
    assert_eq!(router_log_level()?, "info");
    until("the swarm to be as before", || Ok(wait_ready().is_ok().then_some(()))).await?;
    steady.more(16).await;
    let load = steady.stop().await;
    println!("chart upgraded and rolled back: {} answers, {} failed", load.answers, load.failures.len());
    assert!(load.failures.is_empty(), "{:?}", load.failures);
    helm(&["test", RELEASE, "--timeout=60s"]).map(|_| ())
}

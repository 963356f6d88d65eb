//! A task that a process cannot do without panics: the process ends, says so by its readiness, and works again in
//! seconds, with nobody's help.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use slm_tests::{
    cluster::{
        Pod, RELEASE, Steady, adapter_manifest, apply, instances, kubectl, pods, push_adapter, signal, until,
        wait_ready,
    },
    swarm::{Call, Client, quickstart_adapter},
};
use tokio::time::timeout;

/// From the panic until everything works as before.
const RECOVERY: Duration = Duration::from_secs(15);
/// What makes a task panic at SIGUSR2.
const VARIABLE: &str = "SLM_TEST_PANIC";

const OPERATORS: &str = "app.kubernetes.io/name=slm-operator";
const ROUTERS: &str = "app.kubernetes.io/name=slm-router";
const WORKERS: &str = "slmswarm.io/model=smollm2";

/// Sets the variable of the pods that `set` is for, or takes it away, and waits for the pods that have it so.
async fn arm(selector: &str, task: Option<&str>, set: impl Fn(Option<&str>) -> Result<String>) -> Result<()> {
    let number = pods(selector)?.len();
    set(task)?;
    let variable = format!("{{.spec.containers[0].env[?(@.name==\"{VARIABLE}\")].value}}");
    let template = format!("jsonpath={{range .items[*]}}{variable}{{\"\\n\"}}{{end}}");
    until("pods that were told which task is to panic", || {
        let values = kubectl(&["get", "pods", "-l", selector, "-o", &template])?;
        let all = values.lines().all(|value| value == task.unwrap_or_default());
        let now = pods(selector)?;
        Ok((all && now.len() == number && now.iter().all(|pod| pod.ready)).then_some(()))
    })
    .await?;
    wait_ready()
}

/// For pods of the chart's Deployments.
fn of_deployment(component: &str) -> impl Fn(Option<&str>) -> Result<String> {
    let deployment = format!("deployment/{RELEASE}-slm-swarm-{component}");
    move |task| {
        let change = task.map_or_else(|| format!("{VARIABLE}-"), |task| format!("{VARIABLE}={task}"));
        kubectl(&["set", "env", &deployment, &change])
    }
}

/// For workers on CPUs.
fn of_workers(task: Option<&str>) -> Result<String> {
    let patch = serde_json::json!({ "spec": { "env": { VARIABLE: task } } }).to_string();
    kubectl(&["patch", "accel", "cpu", "--type=merge", "-p", &patch])
}

fn pod(selector: &str, name: &str) -> Result<Pod> {
    pods(selector)?.into_iter().find(|pod| pod.name == name).with_context(|| format!("pod {name}"))
}

/// Makes the task of `before` panic, and waits until its container was started again, was not Ready meanwhile and is now,
/// and `works` has come to its end.
async fn recovers(selector: &str, before: &Pod, works: impl Future<Output = Result<()>>) -> Result<()> {
    let begun = Instant::now();
    let name = &before.name;
    signal(name, Signal::SIGUSR2)?;
    let recovery = async {
        until("its container to be ready again", || {
            let now = pod(selector, name)?;
            let again = now.restarts > before.restarts && now.ready && now.ready_changed != before.ready_changed;
            Ok(again.then_some(()))
        })
        .await?;
        println!("{name}: ready again {:?} after the panic", begun.elapsed());
        works.await
    };
    timeout(RECOVERY, recovery).await.with_context(|| format!("{name} has not recovered within {RECOVERY:?}"))??;
    println!("{name}: works again {:?} after the panic", begun.elapsed());
    let log = kubectl(&["logs", name, "--previous"])?;
    ensure!(log.contains("was told to panic"), "it ended for another reason: {log}");
    Ok(())
}

async fn router_recovers() -> Result<()> {
    let router = pods(ROUTERS)?.into_iter().next().context("a router")?;
    let address = format!("http://{}:50051", router.ip);
    recovers(ROUTERS, &router, async {
        // Ready is what answers, at the first call.
        let answer =
            Client::new(&address)?.ask(&Call::new("banking", "put a freeze on my bank account right now")).await?;
        ensure!(answer.text.trim() == "freeze_account", "{answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_whose_fleet_task_panics_recovers() -> Result<()> {
    wait_ready()?;
    arm(ROUTERS, Some("router-fleet"), of_deployment("router")).await?;
    let recovered = router_recovers().await;
    arm(ROUTERS, None, of_deployment("router")).await?;
    recovered
}

async fn operator_recovers() -> Result<()> {
    let uri = push_adapter(&quickstart_adapter("kitchen"), "unmoved:1")?;
    let steady = Steady::begin().await?;
    let leader = kubectl(&["get", "lease", "slm-operator", "-o", "jsonpath={.spec.holderIdentity}"])?;
    let leader = pod(OPERATORS, &leader)?;
    recovers(OPERATORS, &leader, async {
        apply(&adapter_manifest("unmoved", &uri))?;
        until("work to go on", || Ok((!instances("unmoved")?.is_empty()).then_some(()))).await
    })
    .await?;
    let load = steady.stop().await;
    ensure!(load.failures.is_empty(), "callers noticed: {:?}", load.failures);
    kubectl(&["delete", "lora", "unmoved"]).map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_whose_leading_task_panics_recovers() -> Result<()> {
    wait_ready()?;
    arm(OPERATORS, Some("operator-lead"), of_deployment("operator")).await?;
    let recovered = operator_recovers().await;
    arm(OPERATORS, None, of_deployment("operator")).await?;
    recovered
}

async fn worker_recovers() -> Result<()> {
    let steady = Steady::begin().await?;
    let worker = pods(WORKERS)?.into_iter().next().context("a worker")?;
    let expected = instances("banking")?.len();
    recovers(WORKERS, &worker, async {
        until("its adapters", || Ok((instances("banking")?.len() == expected).then_some(()))).await
    })
    .await?;
    let failed = steady.failed().len();
    steady.more(16).await;
    let load = steady.stop().await;
    // The streams that were on it: each of eight callers has one.
    ensure!(failed <= 8 && load.failures.len() == failed, "{:?}", load.failures);
    let clear = load.failures.iter().all(|failure| failure.contains("the connection to the worker broke"));
    ensure!(clear, "{:?}", load.failures);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_state_task_panics_recovers() -> Result<()> {
    wait_ready()?;
    arm(WORKERS, Some("worker-state"), of_workers).await?;
    let recovered = worker_recovers().await;
    arm(WORKERS, None, of_workers).await?;
    recovered
}

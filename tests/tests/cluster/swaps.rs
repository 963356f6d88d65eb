//! Adapters that come, change and go while the cluster serves.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use slm_tests::{
    cluster::{
        Steady, adapter_manifest, apply, client, instances, kubectl, push_adapter, router, until, wait_ready, workers,
    },
    swarm::{Call, quickstart_adapter},
};

/// Additions of which the median counts.
const ADDITIONS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_adapter_answers_within_seconds() -> Result<()> {
    wait_ready()?;
    let client = client()?;
    let mut took = Vec::new();
    for number in 0..ADDITIONS {
        let name = format!("added-{number}");
        // Another repository each time: nothing of it is in any cache by its tag.
        let uri = push_adapter(&quickstart_adapter("banking"), &format!("{name}:1"))?;
        let begun = Instant::now();
        apply(&adapter_manifest(&name, &uri))?;
        let call = Call::new(&name, "put a freeze on my bank account right now");
        loop {
            if client.ask(&call).await.is_ok() {
                break;
            }
            ensure!(begun.elapsed() < Duration::from_secs(60), "{name} does not answer");
        }
        took.push(begun.elapsed());
        kubectl(&["delete", "lora", &name])?;
    }
    took.sort();
    println!(
        "first token of a new adapter after `kubectl apply`: median {:?}, {:?} to {:?}, {ADDITIONS} additions, {} workers",
        took[ADDITIONS / 2],
        took[0],
        took[ADDITIONS - 1],
        workers()?.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_reaches_every_pod_and_no_request_fails() -> Result<()> {
    wait_ready()?;
    let first = push_adapter(&quickstart_adapter("kitchen"), "changing:1")?;
    let second = push_adapter(&quickstart_adapter("travel"), "changing:2")?;
    apply(&adapter_manifest("changing", &first))?;
    wait_ready()?;
    let before = instances("changing")?;
    // The others' answers must not change while this one does.
    let steady = Steady::start(&format!("http://{}", router("grpc")?), "banking").await?;
    apply(&adapter_manifest("changing", &second))?;
    let after = until("the new version on every pod", || {
        let now = instances("changing")?;
        let new = now.len() == before.len() && now.iter().all(|(pod, digest)| before.get(pod) != Some(digest));
        Ok(new.then_some(now))
    })
    .await?;
    steady.more(16).await;
    let load = steady.stop().await;
    assert!(load.failures.is_empty(), "{:?}", load.failures);
    let mut digests: Vec<_> = after.into_values().collect();
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    kubectl(&["delete", "lora", "changing"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_deleted_in_use_finishes_its_answers() -> Result<()> {
    wait_ready()?;
    let uri = push_adapter(&quickstart_adapter("kitchen"), "leaving:1")?;
    apply(&adapter_manifest("leaving", &uri))?;
    wait_ready()?;
    let client = client()?;
    let mut stream = client.stream(Call::long("leaving", "find me a recipe", 200).request()).await?;
    stream.next().await?;
    kubectl(&["delete", "lora", "leaving"])?;
    let answer = stream.rest().await?;
    assert_eq!(answer.tokens, 200, "{answer:?}");
    client.until("leaving", |model| model.is_none()).await?;
    Ok(())
}

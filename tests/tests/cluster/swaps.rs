//! Adapters that come, change and go while the cluster serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use slm_tests::{
    cluster::{
        adapter_manifest, apply, client, instances, kubectl, push_adapter, router, until, until_reason, wait_ready,
        workers,
    },
    swarm::{Call, Client, quickstart_adapter},
};
use tokio::task::JoinSet;

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

/// What a caller of `changing` saw: the digest that the stream said it began with, and the text.
type Seen = (String, String);

/// Calls without a pause until `over`; a failed call is a failed test.
async fn keep_asking(client: Client, call: Call, over: Arc<AtomicBool>) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let answer = client.ask(&call).await?;
        seen.push((answer.expert.digest, answer.text));
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_reaches_every_pod_and_no_stream_mixes_versions() -> Result<()> {
    wait_ready()?;
    let client = client()?;
    let call = Call::long("changing", "put a freeze on my bank account right now", 24);
    let versions = [("banking", "changing:1"), ("travel", "changing:2")];
    let mut references = BTreeMap::new();
    let mut uris = Vec::new();
    for (adapter, tag) in versions {
        let alone = client.ask(&Call { model: adapter.to_owned(), ..call.clone() }).await?;
        references.insert(alone.expert.digest, alone.text);
        uris.push(push_adapter(&quickstart_adapter(adapter), tag)?);
    }
    ensure!(references.len() == 2 && references.values().collect::<BTreeSet<_>>().len() == 2, "{references:?}");
    apply(&adapter_manifest("changing", &uris[0]))?;
    until_reason("lora", "changing", "Ready").await?;
    let pods = instances("changing")?.len();

    let over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let client = Client::new(&format!("http://{}", router("grpc")?))?;
        callers.spawn(keep_asking(client, call.clone(), Arc::clone(&over)));
    }
    // To the second, back to the first, and to the second again.
    for uri in [&uris[1], &uris[0], &uris[1]] {
        let before = instances("changing")?;
        apply(&adapter_manifest("changing", uri))?;
        let begun = Instant::now();
        until("the new version on every pod", || {
            let now = instances("changing")?;
            let new = now.len() == pods && now.iter().all(|(pod, digest)| before.get(pod) != Some(digest));
            Ok((new && now.values().collect::<BTreeSet<_>>().len() == 1).then_some(()))
        })
        .await?;
        println!("a new version is on every pod {:?} after `kubectl apply`", begun.elapsed());
        // Some answers by it.
        client.ask(&call).await?;
    }
    over.store(true, Ordering::Relaxed);
    let mut by_version = BTreeMap::<String, usize>::new();
    while let Some(seen) = callers.join_next().await {
        for (digest, text) in seen?? {
            assert_eq!(references.get(&digest), Some(&text), "a stream of {digest}");
            *by_version.entry(digest).or_default() += 1;
        }
    }
    println!("answers by version: {by_version:?}");
    assert_eq!(by_version.len(), 2, "{by_version:?}");
    kubectl(&["delete", "lora", "changing"]).map(|_| ())
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

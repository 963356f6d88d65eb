//! Two tenants work while a third does everything wrong at once: dear rules, connections by the thousand that say nothing,
//! uploads by the byte, answers that it does not read, floods of urgent requests and of prompts of megabytes, an artifact
//! source that trickles, manifests that are none. The two tenants' answers stay exact, and wait no longer than their own
//! load alone makes them; memory stays as it is.
//!
//! `SLM_CHAOS_SECONDS` says for how long; `make soak` takes 15 minutes. Waiting times and memory are held against their
//! limits when it runs for five minutes or more: in seconds they are a matter of chance.

#[path = "chaos/access.rs"]
mod access;
#[path = "chaos/attacks.rs"]
mod attacks;
#[path = "chaos/manifests.rs"]
mod manifests;
#[path = "chaos/tenants.rs"]
mod tenants;

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use slm_tests::swarm::{Folder, Swarm, adapter, anonymous_bytes, child_pid, quickstart_adapter};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Access, MALLORY},
    attacks::Target,
    tenants::{Scene, percentile},
};

/// Less than prompts come to. As many sequences at once as the two tenants have streams: the time of a step, which is what
/// comes between two tokens, is set by this bound, and a third tenant takes its turns within it.
const RUNTIME: &str = "precision: Int4, maxSequences: 16, contextLength: 512, kvCache: {bytes: 90000000}";
/// The tenants' p99 between tokens, over that of the same load alone.
const GAP_RATIO_MAX: f64 = 1.5;
/// Anonymous memory at the end, over that after the first third.
const GROWTH_MAX: f64 = 1.05;
/// From so long a run on, the two are asserted.
const MEASURED: Duration = Duration::from_secs(300);

fn duration() -> Result<Duration> {
    let seconds = env::var("SLM_CHAOS_SECONDS").unwrap_or_else(|_| "20".into());
    Ok(Duration::from_secs(seconds.parse().context("SLM_CHAOS_SECONDS")?))
}

/// Once a second, until `stop`.
async fn watch(pid: u32, stop: CancellationToken) -> Result<Vec<f64>> {
    let mut seen = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while !stop.is_cancelled() {
        tick.tick().await;
        seen.push(anonymous_bytes(pid)? as f64);
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make soak"]
async fn two_tenants_do_not_notice_a_third() -> Result<()> {
    let duration = duration()?;
    let access = Access::new()?;
    let folder = Folder::quickstart(RUNTIME)?;
    folder.write("route", manifests::DEAR_ROUTE)?;
    folder.write("mallory", &adapter("mallory", "smollm2", &quickstart_adapter("travel")))?;
    let swarm = Swarm::start_with(folder.path(), &["--access", access.path_text()?])?;
    let scene = Arc::new(Scene::new(&swarm, &access).await?);

    let alone = scene.work(Instant::now() + duration / 3).await?;
    let (worker, router) = (child_pid(swarm.pid(), "worker")?, child_pid(swarm.pid(), "router")?);
    let stop = CancellationToken::new();
    let watched = [worker, router].map(|pid| tokio::spawn(watch(pid, stop.clone())));
    let target = Target::new(&swarm, access.certificate(), MALLORY)?;
    let attacks = attacks::all(&target, &stop)?;
    let manifests = tokio::spawn(manifests::come_and_go(folder, stop.clone()));
    let beset = scene.work(Instant::now() + duration).await?;
    stop.cancel();
    let counts = attacks.ended().await?;
    let changes = manifests.await??;

    println!("alone: {alone}\nbeset: {beset}\nattacks: {counts:?}, {changes} manifests");
    assert!(counts.iter().all(|(_, count)| *count > 0) && changes > 0, "{counts:?}");
    let ratio = percentile(&beset.gaps, 0.99).as_secs_f64() / percentile(&alone.gaps, 0.99).as_secs_f64();
    println!("p99 between tokens: {ratio:.2} of that alone");
    for (name, task) in ["worker", "router"].into_iter().zip(watched) {
        let seen = task.await??;
        let third = seen.len() / 3;
        let (early, late) = (tenants::median(&seen[third..2 * third]), tenants::median(&seen[2 * third..]));
        println!("{name}: {:.1} MB anonymous in the second third, {:.1} MB in the last", early / 1e6, late / 1e6);
        assert!(duration < MEASURED || late <= early * GROWTH_MAX, "{name}: {seen:?}");
    }
    assert!(duration < MEASURED || ratio <= GAP_RATIO_MAX, "{ratio}");
    swarm.stop()?;
    Ok(())
}

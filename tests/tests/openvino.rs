//! A swarm on OpenVINO's CPU device: the labels of the quickstart, and experts that come and go under load. `SLM_OPENVINO_SECONDS`
//! says for how long; `make soak-openvino` takes ten minutes.
#![cfg(target_arch = "x86_64")]

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use slm_convert::bundle::cache_dir;
use slm_tests::swarm::{
    Call, Client, Folder, Labelled, Shared, Swarm, adapter, anonymous_bytes, child_pid, labelled, quickstart_adapter,
};
use tokio::task::JoinSet;

/// Streams that run without pause.
const STREAMS: usize = 8;
const RUNTIME: &str = "precision: Int8, contextLength: 256, maxSequences: 10, accelerator: intel-openvino-cpu";
/// What anonymous memory may grow by in the second half of a run of at least [`LONG`].
const GROWTH_MAX: f64 = 1.02;
const LONG: Duration = Duration::from_secs(300);

static QUICKSTART: Shared<(Folder, Swarm)> = Shared::new();

fn quickstart() -> Result<Arc<(Folder, Swarm)>> {
    QUICKSTART.get(|| {
        let library = cache_dir().context("no cache folder")?.join("onnxruntime-openvino/libonnxruntime.so");
        ensure!(library.exists(), "{}: not there; run `scripts/setup openvino`", library.display());
        let folder = Folder::quickstart(RUNTIME)?;
        let swarm = Swarm::start_in(folder.path(), &[], &[("ORT_DYLIB_PATH", &library)])?;
        Ok((folder, swarm))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_expert_gives_its_labels() -> Result<()> {
    let quickstart = quickstart()?;
    let client = quickstart.1.client()?;
    let (asked, wrong) = client.wrong_labels().await?;
    assert!(wrong.is_empty() && asked == 36, "of {asked}: {wrong:#?}");

    // What computes it is seen.
    let model = client.models().await?.into_iter().find(|model| model.name == "smollm2").context("smollm2")?;
    assert_eq!((model.execution_provider.as_str(), model.flavour.as_str()), ("OpenVino", "delta-Int8-F32"));
    let nodes: Vec<_> = model.nodes.iter().map(|part| part.provider.as_str()).collect();
    assert_eq!(nodes, ["OpenVINOExecutionProvider"]);
    Ok(())
}

/// What the callers know.
struct Scene {
    client: Client,
    cases: Vec<Labelled>,
    over: AtomicBool,
    answers: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn experts_come_and_go_under_load() -> Result<()> {
    let quickstart = quickstart()?;
    let (folder, swarm) = &*quickstart;
    let seconds = env::var("SLM_OPENVINO_SECONDS").unwrap_or_else(|_| "10".into());
    let duration = Duration::from_secs(seconds.parse().context("SLM_OPENVINO_SECONDS")?);
    let scene = Scene {
        client: swarm.client()?,
        cases: labelled()?,
        over: AtomicBool::new(false),
        answers: AtomicUsize::new(0),
    };
    let scene = Arc::new(scene);
    let mut callers = JoinSet::new();
    for number in 0..STREAMS {
        callers.spawn(ask_without_pause(Arc::clone(&scene), number));
    }
    let worker = child_pid(swarm.pid(), "worker")?;
    let begun = Instant::now();
    let (mut latencies, mut half) = (Vec::new(), None);
    while begun.elapsed() < duration || latencies.len() < 3 {
        latencies.push(guest(&scene.client, folder, latencies.len()).await?);
        if begun.elapsed() * 2 > duration && half.is_none() {
            half = Some(anonymous_bytes(worker)?);
        }
    }
    let (half, end) = (half.context("no half")?, anonymous_bytes(worker)?);
    scene.over.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    latencies.sort();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part).round() as usize];
    println!(
        "{} answers of {STREAMS} streams, {} experts loaded and unloaded; manifest to first token: p50 {:?}, p99 {:?}; {} -> {} MB anonymous",
        scene.answers.load(Ordering::Relaxed),
        latencies.len(),
        at(0.5),
        at(0.99),
        half / 1_000_000,
        end / 1_000_000,
    );
    let growth = end as f64 / half as f64;
    ensure!(duration < LONG || growth < GROWTH_MAX, "memory grew {growth:.3} times");
    Ok(())
}

async fn ask_without_pause(scene: Arc<Scene>, number: usize) -> Result<()> {
    for round in (number..).step_by(STREAMS) {
        if scene.over.load(Ordering::Relaxed) {
            break;
        }
        let Labelled { expert, prompt, label } = &scene.cases[round % scene.cases.len()];
        let answer = scene.client.ask(&Call::new(expert, prompt)).await?;
        ensure!(answer.text.trim() == label, "{expert}: {prompt:?}: {:?} instead of {label}", answer.text);
        scene.answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A new expert: the time from its manifest to the first token of an answer. It answers as the one that it is a copy of.
async fn guest(client: &Client, folder: &Folder, round: usize) -> Result<Duration> {
    let begun = Instant::now();
    folder.write("guest", &adapter("guest", "smollm2", &quickstart_adapter("banking")))?;
    client.until("guest", |model| model.is_some_and(|model| model.ready)).await?;
    let mut stream = client.stream(Call::new("guest", "what's the routing number of my bank").request()).await?;
    let first = stream.next().await?.context("no token")?;
    let took = begun.elapsed();
    let text = first + &stream.rest().await?.text;
    ensure!(text.trim() == "routing", "round {round}: {text:?}");
    folder.remove("guest")?;
    client.until("guest", |model| model.is_none()).await?;
    Ok(took)
}

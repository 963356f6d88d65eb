//! More adapters than slots: requests to all of them, the popular ones more often, and every answer exactly the one that its
//! adapter gives with a slot of its own.
//!
//! `SLM_PAGING_SECONDS` says for how long SmolLM2-135M answers 16 callers of 500 adapters over 32 slots (`make paging`); without it
//! the tiny model does with fewer, for a number of requests.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use slm_proto::v1::{self, generation_client::GenerationClient};
use slm_tests::{
    smollm2,
    swarm::{Call, Folder, Swarm, quickstart_adapter},
    tiny::{self, Worker, greedy, ids},
    variants::write_variant,
};
use slm_worker::WorkerConfig;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::Channel;

const STREAMS: usize = 16;
/// Popularity of the adapter of rank `n`: `n` to the power of minus this.
const ZIPF: f64 = 1.1;

/// Adapters, and what each answers alone.
struct Adapters {
    folder: TempDir,
    count: usize,
    /// Multiplies their scaling, so that they answer differently.
    scale: f32,
    tokens: u32,
    prompt: Vec<u32>,
    answers: Vec<Vec<u32>>,
}

impl Adapters {
    fn path(&self, number: usize) -> PathBuf {
        self.folder.path().join(name(number))
    }

    async fn load(&self, worker: &mut Worker) -> Result<()> {
        for number in 0..self.count {
            let source = format!("file:{}", self.path(number).display());
            let request =
                v1::LoadAdapterRequest { name: name(number), source, scale: Some(self.scale), ..Default::default() };
            worker.control.load_adapter(request).await?;
        }
        Ok(())
    }
}

fn name(number: usize) -> String {
    format!("adapter-{number:03}")
}

/// `count` variants of the adapter in the folder `of`, with their answers of `tokens` on a worker that has a slot for each.
async fn adapters(
    (of, count, scale): (&Path, usize, f32),
    prompt: &[u32],
    tokens: u32,
    mut worker: Worker,
) -> Result<Adapters> {
    let folder = tempfile::tempdir()?;
    let mut adapters = Adapters { folder, count, scale, tokens, prompt: prompt.to_vec(), answers: Vec::new() };
    for number in 0..count {
        write_variant(of, &adapters.path(number), number as u64)?;
    }
    adapters.load(&mut worker).await?;
    for number in 0..count {
        let request = greedy(&name(number), prompt, tokens);
        adapters.answers.push(ids(&mut worker.generation.generate(request).await?.into_inner()).await?);
    }
    worker.stop().await?;
    let mut distinct = adapters.answers.clone();
    distinct.sort_unstable();
    distinct.dedup();
    ensure!(distinct.len() * 2 > count, "{} of {count} adapters answer alike", count - distinct.len());
    Ok(adapters)
}

/// Draws an adapter by its popularity.
fn draw(count: usize, random: &mut StdRng) -> usize {
    let weight = |number: usize| (number as f64 + 1.0).powf(-ZIPF);
    let mut left = random.random::<f64>() * (0..count).map(weight).sum::<f64>();
    (0..count)
        .find(|number| {
            left -= weight(*number);
            left <= 0.0
        })
        .unwrap_or(0)
}

/// Asks until there is nothing left to do; checks every answer.
async fn ask(mut client: GenerationClient<Channel>, adapters: Arc<Adapters>, left: Arc<Left>, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    while left.take() {
        let number = draw(adapters.count, &mut random);
        let request = greedy(&name(number), &adapters.prompt, adapters.tokens);
        let answer = ids(&mut client.generate(request).await?.into_inner()).await?;
        ensure!(
            answer == adapters.answers[number],
            "{}: {answer:?}, alone {:?}",
            name(number),
            adapters.answers[number]
        );
    }
    Ok(())
}

/// What is left to do: requests, or time.
struct Left {
    requests: AtomicUsize,
    until: Option<Instant>,
    done: AtomicUsize,
}

impl Left {
    fn take(&self) -> bool {
        let more = match self.until {
            Some(until) => Instant::now() < until,
            None => {
                self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            }
        };
        self.done.fetch_add(usize::from(more), Ordering::Relaxed);
        more
    }
}

async fn run(worker: &Worker, adapters: Adapters, left: Left) -> Result<usize> {
    let (adapters, left) = (Arc::new(adapters), Arc::new(left));
    let mut callers = JoinSet::new();
    for seed in 0..STREAMS as u64 {
        callers.spawn(ask(worker.generation.clone(), adapters.clone(), left.clone(), seed));
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(left.done.load(Ordering::Relaxed))
}

/// A free port of loopback, for the probes.
fn probes() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn metrics(probes: SocketAddr) -> Result<String> {
    Ok(reqwest::get(format!("http://{probes}/metrics")).await?.text().await?)
}

/// A metric's value; its name as the text has it, labels included.
fn value(metrics: &str, name: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name} in {metrics}"))?.trim().parse()?)
}

/// The first bound of the histogram of waits under which the share `part` of them is.
fn quantile(metrics: &str, from: &str, part: f64) -> Result<String> {
    let all = value(metrics, &format!("slm_worker_adapter_wait_seconds_count{{from=\"{from}\"}}"))?;
    for line in metrics.lines().filter(|line| line.starts_with("slm_worker_adapter_wait_seconds_bucket{")) {
        let Some((labels, count)) = line.rsplit_once(' ') else { continue };
        if labels.contains(&format!("from=\"{from}\"")) && count.parse::<f64>()? >= all * part {
            let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            return Ok(bound.unwrap_or("?").to_owned());
        }
    }
    Ok("none".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adapters_share_few_slots() -> Result<()> {
    const COUNT: usize = 33;
    let wide = |config: &mut WorkerConfig| config.model.adapter_slots = COUNT;
    let of = tiny::adapter("r4-all");
    let adapters = adapters((&of, COUNT, 1.0), &[3, 17, 5, 9], 8, Worker::start(wide).await?).await?;
    let probes = probes()?;
    let mut worker = Worker::start(|config| {
        config.model.adapter_slots = 6;
        // Room for a few: so some have to come from their files.
        config.model.adapter_host_bytes = 300_000;
        config.model.queue_max = 64;
        config.probes = Some(probes);
    })
    .await?;
    adapters.load(&mut worker).await?;
    let state = worker.state(|state| state.adapters.len() == COUNT).await?;
    assert_eq!((state.adapter_slots, state.adapter_slots_free), (6, 0));
    let at = |location| state.adapters.iter().filter(|adapter| adapter.location() == location).count();
    assert_eq!(at(v1::AdapterLocation::Slot), 6);
    assert!(at(v1::AdapterLocation::HostMemory) > 0 && at(v1::AdapterLocation::Disk) > 0, "{state:?}");

    let left = Left { requests: 600.into(), until: None, done: 0.into() };
    assert_eq!(run(&worker, adapters, left).await?, 600);
    let metrics = metrics(probes).await?;
    for from in ["slot", "host_memory", "disk"] {
        assert!(value(&metrics, &format!("slm_worker_adapter_wait_seconds_count{{from=\"{from}\"}}"))? > 0.0, "{from}");
    }
    assert!(value(&metrics, "slm_worker_adapter_evictions_total")? > 0.0);
    // All requests have ended, and so have their leases.
    worker.state(|state| state.adapters.iter().all(|adapter| adapter.active_requests == 0)).await?;
    worker.stop().await
}

/// One slot, two adapters and a long answer: the other one's request waits for its end, and pinned adapters do not leave.
#[tokio::test]
async fn a_request_waits_for_a_slot_and_a_pinned_adapter_keeps_its_own() -> Result<()> {
    let mut worker = Worker::start(|config| config.model.adapter_slots = 1).await?;
    worker.load("first", &tiny::adapter("r4-all")).await?;
    worker.load("second", &tiny::adapter("rslora")).await?;
    let mut running = worker.generation.generate(greedy("first", &[3, 17, 5], 100)).await?.into_inner();
    running.message().await?;
    let mut other = worker.generation.clone();
    let waiting = tokio::spawn(async move {
        let mut stream = other.generate(greedy("second", &[3, 17, 5], 4)).await?.into_inner();
        ids(&mut stream).await
    });
    assert_eq!(ids(&mut running).await?.len(), 100);
    assert_eq!(waiting.await??.len(), 4);

    let pinned = v1::LoadAdapterRequest {
        name: "pinned".to_owned(),
        source: format!("file:{}", tiny::adapter("r4-all").display()),
        pinned: true,
        ..Default::default()
    };
    worker.control.load_adapter(pinned).await?;
    ids(&mut worker.generation.generate(greedy("pinned", &[3], 1)).await?.into_inner()).await?;
    let refused = worker.generation.generate(greedy("first", &[3], 1)).await.err().context("no slot for it")?;
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("all 1 adapter slots hold pinned adapters"), "{refused}");
    worker.stop().await
}

/// The files of an adapter that is in no memory are gone: its request is told, and its name goes, so that it is loaded anew.
#[tokio::test]
async fn an_adapter_without_files_loses_its_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_variant(&tiny::adapter("r4-all"), folder.path(), 1)?;
    let mut worker = Worker::start(|config| {
        config.model.adapter_slots = 1;
        config.model.adapter_host_bytes = 0;
    })
    .await?;
    worker.load("kept", &tiny::adapter("r4-all")).await?;
    worker.load("lost", folder.path()).await?;
    fs::remove_file(folder.path().join("adapter_model.safetensors"))?;
    let refused = worker.generation.generate(greedy("lost", &[3], 1)).await.err().context("it has no files")?;
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("the files of adapter `lost` have left the cache"), "{refused}");
    let state = worker.state(|state| state.adapters.len() == 1).await?;
    assert_eq!(state.adapters[0].name, "kept");
    assert_eq!(ids(&mut worker.generation.generate(greedy("kept", &[3], 2)).await?.into_inner()).await?.len(), 2);
    worker.stop().await
}

/// A swarm whose base has one slot for three experts: `slm up` loads them all, and each answers as with a slot of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_has_more_experts_than_slots() -> Result<()> {
    const EXPERTS: [&str; 3] = ["banking", "travel", "kitchen"];
    let folder = Folder::quickstart("precision: Int4, maxSequences: 4, contextLength: 256")?;
    let manifest = fs::read_to_string(folder.path().join("smollm2.yaml"))?;
    let swarm = Swarm::start(folder.path())?;
    let client = swarm.client()?;
    let call = |expert: &str| Call::continuing(expert, "book me a flight from lisbon to oslo", 8);
    let mut alone = Vec::new();
    for expert in EXPERTS {
        alone.push(client.ask(&call(expert)).await?.text);
    }
    let before = client.worker_of("smollm2").await?;
    folder.write("smollm2", &format!("{manifest}  adapters: {{slots: 1, hostCacheBytes: 0}}\n"))?;
    for expert in EXPERTS {
        let moved = |workers: &[String]| !workers.is_empty() && !workers.contains(&before);
        client.until(expert, |model| model.is_some_and(|model| moved(&model.workers))).await?;
    }
    let mut callers = JoinSet::new();
    for round in 0..12 {
        let (client, expert) = (client.clone(), EXPERTS[round % EXPERTS.len()]);
        let call = call(expert);
        callers.spawn(async move { Ok::<_, anyhow::Error>((round % EXPERTS.len(), client.ask(&call).await?.text)) });
    }
    while let Some(answered) = callers.join_next().await {
        let (expert, text) = answered??;
        ensure!(text == alone[expert], "{}: {text:?}, alone {:?}", EXPERTS[expert], alone[expert]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_adapters_over_thirty_two_slots() -> Result<()> {
    let Ok(seconds) = env::var("SLM_PAGING_SECONDS") else { return Ok(()) };
    let seconds = Duration::from_secs(seconds.parse().context("SLM_PAGING_SECONDS")?);
    let count = env::var("SLM_PAGING_ADAPTERS").map_or(Ok(500), |count| count.parse())?;
    let wide = smollm2::worker_with(|config| config.model.adapter_slots = count).await?;
    let prompt: Vec<u32> = (1000..1040).collect();
    let adapters = adapters((&quickstart_adapter("banking"), count, 8.0), &prompt, 8, wide).await?;
    println!("{count} adapters with their answers");
    let probes = probes()?;
    let mut worker = smollm2::worker_with(|config| {
        config.model.adapter_slots = 32;
        config.model.sequences_max = STREAMS;
        config.model.adapter_host_bytes = 256 << 20;
        config.probes = Some(probes);
    })
    .await?;
    adapters.load(&mut worker).await?;
    let left = Left { requests: 0.into(), until: Some(Instant::now() + seconds), done: 0.into() };
    let requests = run(&worker, adapters, left).await?;
    let metrics = metrics(probes).await?;
    let evictions = value(&metrics, "slm_worker_adapter_evictions_total")?;
    println!("{requests} requests, {evictions} evictions; waits under, in seconds:");
    for from in ["slot", "host_memory", "disk"] {
        let count = value(&metrics, &format!("slm_worker_adapter_wait_seconds_count{{from=\"{from}\"}}"))?;
        let [half, most] = [0.5, 0.99].map(|part| quantile(&metrics, from, part));
        println!("{from}: {count} requests, p50 <= {}, p99 <= {}", half?, most?);
    }
    worker.stop().await
}

//! Everything at once for a while: streams of random lengths, some of which hang up, experts that are replaced under
//! them. No error, every greedy stream the one that its version gives alone, and memory that does not grow.
//!
//! `SLM_SOAK_SECONDS` says for how long; `make soak` takes half an hour. Memory is looked at when it runs for fifteen minutes
//! or more. Pages of keys and values are touched for the first time before, all of them: when a run needs the last of them is
//! chance. It is read while the swarm rests: while it answers,
//! the versions that requests hold leases on have their memory too, and how many there are is a matter of the machine's speed.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use slm_proto::v1::WorkerState;
use slm_tests::swarm::{
    Answer, Call, Client, Folder, Swarm, adapter, anonymous_bytes, child_pid, quickstart_adapter, worker_state_until,
};
use tokio::sync::RwLock;

const STREAMS: usize = 16;
const TOKENS_MAX: u32 = 48;
/// One in so many hangs up in the middle.
const HANG_UP: u32 = 8;
/// Less than the prompts of a run come to, so that pages are evicted all the time.
const RUNTIME: &str = "precision: Int4, maxSequences: 12, contextLength: 512, kvCache: {bytes: 50000000}";
const EXPERTS: [&str; 4] = ["smollm2", "steady", "swapped", "swapped"];
const VERSIONS: [&str; 2] = ["banking", "travel"];
/// Prompts of more than 300 tokens that fill the pool, which has room for about 2,200.
const FILLING: usize = 12;
/// From then on memory has to stay as it is.
const SETTLED: Duration = Duration::from_secs(300);
/// Memory is compared as medians of so long a time.
const WINDOW: Duration = Duration::from_secs(60);
/// Windows that say something of a trend.
const WINDOWS_MIN: usize = 10;
/// How often callers and replacements pause until the worker is idle, for its memory to be read.
const REST: Duration = Duration::from_secs(20);
/// What resident memory may grow by from one window to the next, in the median of them: 0.14 MB, about 200 bytes for each replacement. A
/// version that leaves anything behind shows.
const TREND_MAX: f64 = 1.001;
/// What it may grow by in all. When several versions were in use at once, rarely and for a moment, the allocator keeps some of their
/// room: three runs of half an hour had one such step each, of 3 to 12 MB of 137, and were the same within 0.3 % for a thousand
/// seconds before or after it.
const GROWTH_MAX: f64 = 1.15;

fn duration() -> Result<Duration> {
    let seconds = env::var("SLM_SOAK_SECONDS").unwrap_or_else(|_| "15".into());
    Ok(Duration::from_secs(seconds.parse().context("SLM_SOAK_SECONDS")?))
}

/// The words of a text.
fn words() -> Vec<&'static str> {
    include_str!("../../LICENSE").split_whitespace().collect()
}

/// Pieces of a text, of all lengths; some begin alike.
fn prompts() -> Vec<String> {
    let words = words();
    [(0, 3), (0, 40), (0, 160), (200, 30), (200, 230), (700, 90)]
        .map(|(first, count)| words[first..first + count].join(" "))
        .to_vec()
}

struct Scene {
    client: Client,
    prompts: Vec<String>,
    /// Greedy answers of `TOKENS_MAX` tokens, by digest and prompt.
    references: HashMap<(String, usize), String>,
    over: AtomicBool,
    /// Held for reading by each request and each replacement, for writing while memory is read.
    rest: RwLock<()>,
    answers: AtomicUsize,
    hung_up: AtomicUsize,
}

impl Scene {
    fn check(&self, prompt: usize, answer: &Answer, tokens: u32) -> Result<()> {
        let digest = &answer.expert.digest;
        let reference = self.references.get(&(digest.clone(), prompt)).context("a version that nobody loaded")?;
        // Half a character at the end is shown as what it is not.
        let text = answer.text.trim_end_matches('\u{fffd}');
        ensure!(answer.tokens == tokens, "{} tokens instead of {tokens}", answer.tokens);
        ensure!(reference.starts_with(text), "{digest} to prompt {prompt}: {text:?}, alone {reference:?}");
        self.answers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

async fn alone(client: &Client, model: &str, scene: &mut HashMap<(String, usize), String>) -> Result<()> {
    for (index, prompt) in prompts().iter().enumerate() {
        let answer = client.ask(&Call::continuing(model, prompt, TOKENS_MAX)).await?;
        scene.insert((answer.expert.digest, index), answer.text);
    }
    Ok(())
}

/// Fills the pool of keys and values with prompts none of which begins like another: more tokens than it has room for.
async fn fill(client: &Client) -> Result<()> {
    let words = words();
    for first in 0..FILLING {
        let prompt = words[first * 11..][..240].join(" ");
        client.ask(&Call::continuing("smollm2", &prompt, 1)).await?;
    }
    Ok(())
}

async fn stream(scene: Arc<Scene>, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    while !scene.over.load(Ordering::Relaxed) {
        let prompt = random.random_range(0..scene.prompts.len());
        let tokens = random.random_range(1..=TOKENS_MAX);
        let expert = EXPERTS[random.random_range(0..EXPERTS.len())];
        let call = Call::continuing(expert, &scene.prompts[prompt], tokens);
        let _working = scene.rest.read().await;
        let mut stream = scene.client.stream(call.request()).await?;
        if random.random_ratio(1, HANG_UP) {
            stream.next().await?;
            scene.hung_up.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        scene.check(prompt, &stream.rest().await?, tokens)?;
    }
    Ok(())
}

async fn replace(scene: &Scene, folder: &Folder, until: Instant) -> Result<usize> {
    let mut digest = scene.client.until("swapped", |model| model.is_some()).await?.context("swapped")?.digest;
    let mut replacements = 0;
    while Instant::now() < until {
        let _working = scene.rest.read().await;
        replacements += 1;
        let version = VERSIONS[replacements % 2];
        folder.write("swapped", &adapter("swapped", "smollm2", &quickstart_adapter(version)))?;
        digest = scene.client.until_replaced("swapped", &digest).await?;
    }
    Ok(replacements)
}

fn idle(state: &WorkerState) -> bool {
    state.sequences_running == 0
        && state.adapters.len() == 2
        && state.adapters.iter().all(|adapter| adapter.active_requests == 0)
}

/// Resident bytes of the worker at every rest, and when.
async fn watch(scene: &Scene, worker: &str, pid: u32, until: Instant) -> Result<Vec<(Duration, u64)>> {
    let start = Instant::now();
    let mut seen = Vec::new();
    let mut tick = tokio::time::interval(REST);
    while Instant::now() < until {
        tick.tick().await;
        let _nobody = scene.rest.write().await;
        worker_state_until(worker, idle).await?;
        seen.push((start.elapsed(), anonymous_bytes(pid)?));
    }
    Ok(seen)
}

/// Medians of what was resident in each window after [`SETTLED`].
fn windows(seen: &[(Duration, u64)]) -> Vec<f64> {
    let mut windows: BTreeMap<u128, Vec<u64>> = BTreeMap::new();
    for (at, bytes) in seen.iter().filter(|(at, _)| *at >= SETTLED) {
        windows.entry(at.as_millis() / WINDOW.as_millis()).or_default().push(*bytes);
    }
    windows.values().map(|window| median(window)).collect()
}

fn median(values: &[u64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map_or(f64::NAN, |&value| value as f64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_breaks_or_grows() -> Result<()> {
    let folder = Folder::quickstart(RUNTIME)?;
    for name in ["banking", "travel", "kitchen"] {
        folder.remove(name)?;
    }
    folder.write("steady", &adapter("steady", "smollm2", &quickstart_adapter("kitchen")))?;
    folder.write("swapped", &adapter("swapped", "smollm2", &quickstart_adapter(VERSIONS[0])))?;
    folder.write("other", &adapter("other", "smollm2", &quickstart_adapter(VERSIONS[1])))?;
    let swarm = Swarm::start(folder.path())?;
    let client = swarm.client()?;
    let worker = client.worker_of("smollm2").await?;
    let mut references = HashMap::new();
    for model in ["smollm2", "steady", "swapped", "other"] {
        alone(&client, model, &mut references).await?;
    }
    fill(&client).await?;
    folder.remove("other")?;
    client.until("other", |model| model.is_none()).await?;
    let scene = Arc::new(Scene {
        client,
        prompts: prompts(),
        references,
        over: AtomicBool::new(false),
        rest: RwLock::new(()),
        answers: AtomicUsize::new(0),
        hung_up: AtomicUsize::new(0),
    });

    let duration = duration()?;
    let until = Instant::now() + duration;
    let streams: Vec<_> = (0..STREAMS).map(|seed| tokio::spawn(stream(scene.clone(), seed as u64))).collect();
    let pid = child_pid(swarm.pid(), "worker")?;
    let changed = tokio::try_join!(replace(&scene, &folder, until), watch(&scene, &worker, pid, until));
    scene.over.store(true, Ordering::Relaxed);
    for stream in streams {
        stream.await??;
    }
    let (replacements, seen) = changed?;
    let (answers, hung_up) = (scene.answers.load(Ordering::Relaxed), scene.hung_up.load(Ordering::Relaxed));
    println!("{duration:?}: {answers} answers, {hung_up} hung up, {replacements} replacements");
    assert!(answers > 0 && hung_up > 0 && replacements > 0);
    let windows = windows(&seen);
    if let (Some(first), Some(last)) = (windows.first(), windows.last())
        && windows.len() >= WINDOWS_MIN
    {
        let mut changes: Vec<f64> = windows.windows(2).map(|pair| pair[1] / pair[0]).collect();
        changes.sort_by(f64::total_cmp);
        let trend = changes[changes.len() / 2];
        println!(
            "resident at rest, anonymous: {:.1} MB after {SETTLED:?}, {:.1} MB at the end; {:+.3} % in the median minute",
            first / 1e6,
            last / 1e6,
            100.0 * (trend - 1.0)
        );
        assert!(trend <= TREND_MAX && *last <= first * GROWTH_MAX, "{seen:?}");
    }
    worker_state_until(&worker, idle).await?;
    swarm.stop()?;
    Ok(())
}

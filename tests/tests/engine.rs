//! The engine over a tiny real model: whatever runs beside a request, and whatever is cached or drafted, its answer is
//! the one that it gets alone.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use slm_convert::{
    bundle::{Bundle, PrecisionChoice},
    checkpoint::Checkpoint,
    graph::{Activations, Precision},
    peft::Adapter,
};
use slm_tests::parity::folders;
use slm_worker::{
    adapters::{AdapterInfo, AdapterLease, Adapters},
    engine::{Engine, EngineConfig, Event, FinishReason, Job, StepFailure},
    runtime::{AdapterRoom, Provider, Runtime, SessionConfig},
    sample::SamplingParams,
};
use tokio::sync::mpsc::Receiver;

const CONTEXT: usize = 96;
const VOCAB: u32 = 128;

/// Room, and what to do with it.
#[derive(Clone, Copy)]
struct Setup {
    /// Folder of the parity data.
    family: &'static str,
    sequences: usize,
    pages: usize,
    prefix_pages: usize,
    prompt_lookup: bool,
    provider: Provider,
    precision: Precision,
}

/// Everything on.
const ALL: Setup = Setup {
    family: "smollm2",
    sequences: 4,
    pages: 16,
    prefix_pages: 16,
    prompt_lookup: true,
    provider: Provider::Cpu,
    precision: Precision::Int4,
};
/// Nothing shared, nothing drafted, nobody beside.
const ALONE: Setup = Setup { sequences: 1, pages: 3, prefix_pages: 0, prompt_lookup: false, ..ALL };
/// Over rows of a device, with adapters in its bank.
const ROWS: Setup = Setup {
    family: "smollm2",
    sequences: 4,
    pages: 4,
    prefix_pages: 0,
    prompt_lookup: false,
    provider: Provider::CpuGqa(Activations::F32),
    precision: Precision::F32,
};

struct House {
    engine: Engine,
    thread: std::thread::JoinHandle<()>,
    experts: Vec<Option<Arc<AdapterLease>>>,
}

impl House {
    fn open(setup: Setup) -> Result<Self> {
        let family = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/data").join(setup.family);
        let cache = tempfile::tempdir()?;
        let checkpoint = Checkpoint::open(&family)?;
        let Setup { provider, precision, .. } = setup;
        let flavour = provider.flavour(PrecisionChoice::Exactly(precision));
        let bundle = Bundle::open_or_build(&checkpoint, flavour, cache.path(), &mut |_, _| ())?;
        let adapters = Adapters::new(8, 0, 0);
        // Fewer rows for drafts than are found: a step with more would fail.
        let logits = setup.sequences + if setup.prompt_lookup { 3 } else { 0 };
        let (pages, sequences) = (setup.pages, setup.sequences);
        let config = SessionConfig { context_length: CONTEXT, pages, sequences, logits, threads: 2 };
        let opened = provider.open(
            &Runtime::load()?,
            &bundle,
            config,
            AdapterRoom { slots: 8, rank_max: 8 },
            adapters.table(),
        )?;
        let mut experts = vec![None];
        for dir in folders(&family.join("adapters"))? {
            if dir.join("MUST_BE_REJECTED").exists() {
                continue;
            }
            let adapter = Adapter::open(&dir, checkpoint.architecture())?;
            let name = slm_tests::parity::file_name(&dir);
            let loaded = opened.loader.load(&adapter, 1.0)?;
            let info = AdapterInfo::new(&name, &loaded, 1.0, Duration::ZERO);
            experts.push(Some(adapters.publish(info, loaded)?));
        }
        let config = EngineConfig {
            sequences_max: setup.sequences,
            queue_max: 100,
            unread_max: 100,
            prefix_pages: setup.prefix_pages,
            prompt_lookup: setup.prompt_lookup,
            step_max: Duration::from_millis(100),
        };
        let (engine, thread) = Engine::start(opened.backend, config)?;
        Ok(Self { engine, thread, experts })
    }

    fn job(&self, request: &Request) -> Job {
        Job {
            prompt: request.prompt.clone(),
            adapter: self.experts[request.expert % self.experts.len()].clone(),
            sampling: SamplingParams { temperature: request.temperature, seed: 7, ..SamplingParams::GREEDY },
            guide: None,
            tokens_max: request.tokens,
            stop_ids: Vec::new(),
            priority: request.priority,
            weight: 1,
            deadline: None,
        }
    }

    fn submit(&self, job: Job) -> Result<Receiver<Event>> {
        self.submit_of("", job)
    }

    fn submit_of(&self, tenant: &str, job: Job) -> Result<Receiver<Event>> {
        let permit = self.engine.enter(&tenant.into(), job.priority)?;
        Ok(self.engine.submit(permit, job)?)
    }

    /// Runs them all at once.
    fn answers(&self, requests: &[Request]) -> Result<Vec<Answer>> {
        let jobs = requests.iter().map(|request| self.submit(self.job(request)));
        let channels: Vec<_> = jobs.collect::<Result<_>>()?;
        channels.into_iter().map(collect).collect()
    }

    /// The thread ends by itself when nobody can ask any more.
    fn close(self) -> Result<()> {
        drop(self.engine);
        self.thread.join().map_err(|_| anyhow!("the engine's thread panicked"))
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Request {
    prompt: Vec<u32>,
    expert: usize,
    tokens: usize,
    temperature: f32,
    priority: i32,
}

impl Request {
    fn new(prompt: Vec<u32>, expert: usize, tokens: usize) -> Self {
        Self { prompt, expert, tokens, temperature: 0.0, priority: 0 }
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    cached: usize,
}

fn collect(mut events: Receiver<Event>) -> Result<Answer> {
    let mut answer = Answer { tokens: Vec::new(), cached: usize::MAX };
    loop {
        match events.blocking_recv().context("the engine is gone")? {
            Event::Read { cached } => answer.cached = cached,
            Event::Token { id, .. } | Event::End { id, .. } => answer.tokens.push(id),
            Event::Finished { reason: FinishReason::Length | FinishReason::Stop, generated } => {
                assert_eq!(generated, answer.tokens.len());
                return Ok(answer);
            }
            Event::Failed(failure) => bail!("{failure}"),
        }
    }
}

/// Tokens that differ by `seed`.
fn text(seed: u32, count: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % VOCAB
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Requests of all lengths and experts, some of which begin alike.
fn mix() -> Vec<Request> {
    let request = |i: u32| {
        let mut prompt = text(i % 3, [1, 31, 33, 40, 64, 65][i as usize % 6]);
        prompt.extend(text(100 + i, 1 + i as usize % 5));
        let temperature = if i.is_multiple_of(4) { 0.8 } else { 0.0 };
        Request { temperature, ..Request::new(prompt, i as usize % 5, 3 + i as usize % 20) }
    };
    (0..60).map(request).collect()
}

#[test]
fn an_answer_is_the_one_that_it_gets_alone() -> Result<()> {
    let requests = mix();
    let alone = House::open(ALONE)?;
    let expected: Vec<_> = requests
        .iter()
        .map(|request| Ok(alone.answers(std::slice::from_ref(request))?.remove(0)))
        .collect::<Result<_>>()?;
    assert!(expected.iter().all(|answer| answer.cached == 0));
    let house = House::open(ALL)?;
    let mut cached = 0;
    for turn in 0..3 {
        for (index, (answer, expected)) in house.answers(&requests)?.iter().zip(&expected).enumerate() {
            assert_eq!(answer.tokens, expected.tokens, "turn {turn}, request {index}: {:?}", requests[index]);
            cached += answer.cached;
        }
    }
    let stats = house.engine.stats();
    println!("{cached} prompt tokens were cached; drafts: {} tokens, {} right", stats.drafted, stats.drafted_right);
    assert!(cached > 0);
    alone.close()?;
    house.close()
}

/// Families whose sequences have states.
const WITH_STATES: [&str; 2] = ["lfm2-conv", "qwen3_5"];

/// A prompt may be cut anywhere, and slots change hands all the time. A prefix in a page says nothing of the state at its end, and
/// a state cannot go back behind a wrong draft: so nothing is shared and nothing is drafted, whatever is asked for.
#[test]
fn with_states_too_an_answer_is_the_one_that_it_gets_alone() -> Result<()> {
    let requests = mix();
    for family in WITH_STATES {
        let alone = House::open(Setup { family, ..ALONE })?;
        let one = |request| Ok(alone.answers(std::slice::from_ref(request))?.remove(0));
        let expected: Vec<Answer> = requests.iter().map(one).collect::<Result<_>>()?;
        let house = House::open(Setup { family, ..ALL })?;
        for turn in 0..2 {
            for (index, (answer, expected)) in house.answers(&requests)?.iter().zip(&expected).enumerate() {
                assert_eq!(answer.tokens, expected.tokens, "{family}, turn {turn}: {:?}", requests[index]);
                assert_eq!(answer.cached, 0);
            }
        }
        assert_eq!(house.engine.stats().drafted, 0);
        alone.close()?;
        house.close()?;
    }
    Ok(())
}

#[test]
fn what_a_cancelled_sequence_leaves_in_its_slot_is_of_no_matter() -> Result<()> {
    for family in WITH_STATES {
        let request = Request::new(text(3, 50), 1, 20);
        let asked = std::slice::from_ref(&request);
        let fresh = House::open(Setup { family, ..ALONE })?;
        let expected = fresh.answers(asked)?.remove(0);
        fresh.close()?;
        // There is one slot.
        let house = House::open(Setup { family, ..ALONE })?;
        for i in 0..10 {
            let mut events = house.submit(house.job(&Request::new(text(i, 40), 0, 50)))?;
            (0..1 + i).try_for_each(|_| events.blocking_recv().map(drop)).context("so many events")?;
            drop(events);
            assert_eq!(house.answers(asked)?.remove(0), expected, "{family}, after {i}");
        }
        house.close()?;
    }
    Ok(())
}

/// The same engine over rows: answers are those of the CPU's own operators, whoever else generates, and with adapters that
/// differ from row to row. There is nothing to share and nothing to draft.
#[test]
fn over_rows_answers_are_those_over_pages() -> Result<()> {
    let requests: Vec<_> = mix().into_iter().filter(|request| request.temperature == 0.0).collect();
    let pages = House::open(Setup { precision: Precision::F32, ..ALONE })?;
    let expected = pages.answers(&requests)?;
    pages.close()?;
    for provider in [Provider::CpuGqa, Provider::CpuStandard, Provider::CpuDelta].map(|of| of(Activations::F32)) {
        let rows = House::open(Setup { provider, ..ROWS })?;
        for turn in 0..2 {
            let answers = rows.answers(&requests)?;
            for (index, (answer, expected)) in answers.iter().zip(&expected).enumerate() {
                let request = &requests[index];
                assert_eq!(answer.tokens, expected.tokens, "{provider:?}, turn {turn}, request {index}: {request:?}");
                assert_eq!(answer.cached, 0);
            }
        }
        assert_eq!(rows.engine.stats().drafted, 0);
        rows.close()?;
    }
    Ok(())
}

/// Whether a draft pays is for the engine to find out, so this goes on until it did.
#[test]
fn what_repeats_is_drafted_and_stays_the_same() -> Result<()> {
    let (alone, house) = (House::open(ALONE)?, House::open(ALL)?);
    for i in 0..1000 {
        let request = Request::new(text(i, 6).repeat(4), 0, 60);
        let asked = std::slice::from_ref(&request);
        assert_eq!(house.answers(asked)?[0].tokens, alone.answers(asked)?[0].tokens, "{request:?}");
        let stats = house.engine.stats();
        assert!(stats.drafted_right <= stats.drafted && stats.tokens_generated <= stats.steps * 9);
        if stats.drafted_right > 20 {
            println!("{} of {} tokens right in {} steps", stats.drafted_right, stats.drafted, stats.steps);
            alone.close()?;
            return house.close();
        }
    }
    bail!("no draft was right: {:?}", house.engine.stats())
}

#[test]
fn a_prompt_is_computed_once_for_each_expert() -> Result<()> {
    let house = House::open(ALL)?;
    let ask = |expert, end| {
        let mut prompt = text(1, 70);
        prompt.extend(text(end, 5));
        Ok::<_, anyhow::Error>(house.answers(&[Request::new(prompt, expert, 2)])?[0].cached)
    };
    assert_eq!((ask(1, 2)?, ask(1, 3)?, ask(2, 3)?, ask(0, 3)?, ask(1, 4)?), (0, 64, 0, 0, 64));
    house.close()
}

#[test]
fn a_prompt_is_computed_once_for_each_tenant() -> Result<()> {
    let house = House::open(ALL)?;
    let ask = |tenant, end| {
        let mut prompt = text(1, 70);
        prompt.extend(text(end, 5));
        Ok::<_, anyhow::Error>(collect(house.submit_of(tenant, house.job(&Request::new(prompt, 1, 2)))?)?.cached)
    };
    assert_eq!((ask("a", 2)?, ask("b", 3)?, ask("", 3)?), (0, 0, 0), "nothing tells of others");
    assert_eq!((ask("a", 4)?, ask("b", 5)?, ask("", 6)?), (64, 64, 64));
    house.close()
}

#[test]
fn a_flood_of_one_tenant_neither_fills_the_queue_nor_goes_first() -> Result<()> {
    let house = House::open(Setup { sequences: 1, ..ALL })?;
    let request = Request::new(text(0, 10), 0, 20);
    // 101 places, and some that were answered before the last of them was taken.
    let mut flood = Vec::new();
    let refused = loop {
        match house.submit_of("flood", house.job(&request)) {
            Ok(events) => flood.push(events),
            Err(refused) => break refused.to_string(),
        }
        assert!(flood.len() < 1000, "it fills the queue");
    };
    assert!(flood.len() >= 101 && refused.contains("retry later"), "{}: {refused}", flood.len());
    let quiet: Vec<_> = (0..10).map(|_| house.submit_of("quiet", house.job(&request))).collect::<Result<_>>()?;
    for events in quiet {
        assert_eq!(collect(events)?.tokens.len(), 20);
    }
    let stats = house.engine.stats();
    assert!(stats.waiting > 60, "half of the places went to the other tenant: {stats:?}");
    let mut displaced = 0;
    for events in flood {
        if let Err(error) = collect(events) {
            assert!(error.to_string().contains("other tenants took its place"), "{error}");
            displaced += 1;
        }
    }
    assert!((1..=10).contains(&displaced), "{displaced}: no more than were needed");
    house.close()
}

#[test]
fn requests_wait_for_pages_and_all_are_answered() -> Result<()> {
    // Room for one and a half of them.
    let house = House::open(Setup { pages: 4, prefix_pages: 4, ..ALL })?;
    let requests: Vec<_> = (0..10).map(|i| Request::new(text(i, 60), 0, 30)).collect();
    assert!(house.answers(&requests)?.iter().all(|answer| answer.tokens.len() == 30));
    house.close()
}

#[test]
fn the_lowest_priority_number_is_answered_first() -> Result<()> {
    let house = House::open(Setup { sequences: 1, ..ALL })?;
    let first = house.submit(house.job(&Request::new(text(0, 10), 0, 60)))?;
    let submit = |priority| house.submit(house.job(&Request { priority, ..Request::new(text(1, 60), 0, 30) }));
    let (low, mut high) = (submit(5)?, submit(-5)?);
    collect(first)?;
    collect(low)?;
    let mut events = 0;
    while high.try_recv().is_ok() {
        events += 1;
    }
    assert_eq!(events, 32, "it ended before the other");
    house.close()
}

#[test]
fn who_hangs_up_leaves_room_for_others() -> Result<()> {
    let house = House::open(Setup { sequences: 2, pages: 6, ..ALL })?;
    for i in 0..40 {
        let mut events = house.submit(house.job(&Request::new(text(i, 40), 1, 50)))?;
        events.blocking_recv().context("a first event")?;
    }
    assert_eq!(house.answers(&[Request::new(text(9, 40), 1, 50)])?[0].tokens.len(), 50);
    let mut job = house.job(&Request::new(text(9, 40), 1, 50));
    job.deadline = Some(Instant::now());
    let mut events = house.submit(job)?;
    assert!(matches!(events.blocking_recv(), Some(Event::Failed(StepFailure::Deadline))));
    house.close()
}

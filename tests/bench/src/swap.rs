//! Adapters that are swapped while others generate: how soon a new version answers, and what the others see of it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures::future;
use serde_json::{Value, json};
use slm_tests::archives::Archives;

use crate::{
    PROMPT, RANK, adapters,
    direct::{Direct, Room},
    load::{LoadResult, Request},
    prompts::Prompts,
    run::Run,
    table::quantile,
};

/// Who generates all the time: as many streams of the base as of resident adapters.
const STREAMS: [Option<usize>; 4] = [None, Some(0), None, Some(1)];
/// Number of the adapter whose two versions take turns, after those that stay.
const SWAPPED: usize = 2;
/// Versions of it, after the archives of those that stay.
const VERSIONS: [usize; 2] = [SWAPPED, SWAPPED + 1];
/// Tokens of each stream's answers: seconds, so that hardly a prompt of theirs is read among the swaps.
const LONG_ANSWER: usize = 800;
/// Tokens of the prompt that the new version is asked.
const SHORT_PROMPT: usize = 4;
/// At least, all turns together.
const SWAPS_MIN: usize = 100;

/// Everything that was measured, in seconds.
#[derive(Default)]
pub(crate) struct Swaps {
    /// Of each swap: the call that loads, then the first token that the new version answers.
    parts: Vec<[f64; 2]>,
    /// Between tokens of the streams, nothing being loaded.
    quiet: Vec<f64>,
    /// The same while one swap follows the other.
    swapping: Vec<f64>,
}

/// One swap.
struct Swap {
    begun: Instant,
    loaded: Instant,
    answered: Instant,
}

/// Measures when it is selected.
pub(crate) async fn measure(run: &Run) -> Result<Option<Swaps>> {
    if !run.only.has("swap") {
        return Ok(None);
    }
    let mut bench = Bench::start(run).await?;
    let mut all = Swaps::default();
    let mut turn = 0;
    while turn <= run.repeat || all.parts.len() < SWAPS_MIN {
        let quiet = bench.streams().await?;
        let (swapping, swaps) = bench.swaps().await?;
        let ((begin, end), gaps) = (swapping.together()?, swapping.gaps_together()?);
        let whole = swaps.iter().filter(|swap| swap.begun >= begin && swap.answered <= end);
        let parts: Vec<_> = whole.map(Swap::parts).collect();
        ensure!(!parts.is_empty(), "the streams ended before one adapter was swapped");
        eprintln!("swaps: turn {turn} of {}: {} in {:.1?}", run.repeat, parts.len(), end - begin);
        // The first turn warms caches and pages up.
        if turn > 0 {
            all.parts.extend(parts);
            all.quiet.extend(quiet.gaps_together()?);
            all.swapping.extend(gaps);
        }
        turn += 1;
    }
    bench.served.stop().await?;
    Ok(Some(all))
}

/// The running worker and router, and what they are asked.
struct Bench {
    served: Direct,
    prompts: Prompts,
    versions: [(String, String); 2],
    loaded: usize,
}

impl Bench {
    async fn start(run: &Run) -> Result<Self> {
        let dir = run.folder("swap")?;
        let folders: Vec<_> = (0..=VERSIONS[1]).map(|i| dir.join(format!("adapter-{i}"))).collect();
        for (seed, folder) in folders.iter().enumerate() {
            adapters::write(folder, &run.model.bundle.info.architecture, RANK, seed as u64)?;
        }
        let archives = Archives::serve(&folders).await?;
        let room = Room { sequences: 2 * STREAMS.len(), adapters: SWAPPED + 1, rank_max: RANK };
        let served = Direct::start(&run.slm, run.model.path(), &run.folder("swap/cache")?, &room).await?;
        for number in 0..=SWAPPED {
            served.load(number, &archives.source(number)).await?;
        }
        // From here on everything is in the cache, and the server is gone.
        served.load(SWAPPED, &archives.source(VERSIONS[1])).await?;
        served.until_ready().await?;
        let versions = VERSIONS.map(|version| archives.source(version));
        Ok(Self { served, prompts: Prompts::new(&run.model.bundle)?, versions, loaded: 1 })
    }

    /// One answer of each stream.
    async fn streams(&mut self) -> Result<LoadResult> {
        let requests = self.requests();
        self.served.endpoint.run(&requests).await
    }

    /// The same while one swap follows the other.
    async fn swaps(&mut self) -> Result<(LoadResult, Vec<Swap>)> {
        let requests = self.requests();
        let Self { served, prompts, versions, loaded } = self;
        let over = Cell::new(false);
        let streams = async {
            let load = served.endpoint.run(&requests).await;
            over.set(true);
            load
        };
        let swaps = async {
            let mut swaps = Vec::new();
            while !over.get() {
                *loaded = 1 - *loaded;
                swaps.push(swap(served, &versions[*loaded], prompts.one(SHORT_PROMPT)).await?);
            }
            Ok(swaps)
        };
        future::try_join(streams, swaps).await
    }

    fn requests(&mut self) -> Vec<Request> {
        let one = |adapter| Request { prompt: self.prompts.one(PROMPT), adapter, answer: LONG_ANSWER, rule: None };
        STREAMS.map(one).into()
    }
}

/// Loads a version and has it answer.
async fn swap(served: &Direct, version: &(String, String), prompt: Vec<u32>) -> Result<Swap> {
    let begun = Instant::now();
    let state = served.load(SWAPPED, version).await?;
    let loaded = Instant::now();
    let answer = served.endpoint.ask(Request { prompt, adapter: Some(SWAPPED), answer: 1, rule: None }).await?;
    let answered = loaded + Duration::from_secs_f64(answer.first_tokens()[0]);
    let versions = answer.answers.iter().map(|answer| answer.version.as_str());
    ensure!(versions.eq([state.digest.as_str()]), "another version answered than {}", state.digest);
    Ok(Swap { begun, loaded, answered })
}

impl Swap {
    fn parts(&self) -> [f64; 2] {
        [self.loaded - self.begun, self.answered - self.loaded].map(|time| time.as_secs_f64())
    }
}

impl Swaps {
    /// Names and values of the rows.
    fn rows(&self) -> [(&'static str, Vec<f64>); 5] {
        let part = |index: usize| self.parts.iter().map(|parts| parts[index]).collect();
        let wholes = self.parts.iter().map(|parts| parts.iter().sum()).collect();
        [
            ("swap: from the load call to the first token", wholes),
            ("of that, the load call", part(0)),
            ("of that, the first token", part(1)),
            ("between tokens of the streams, no swaps", self.quiet.clone()),
            ("between tokens of the streams, swaps without pause", self.swapping.clone()),
        ]
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = format!(
            "Adapters swapped while {} streams generate, {} swaps of a rank-{RANK} adapter on every linear layer, its \
             artifact in the local cache; the first token is that of a prompt of {SHORT_PROMPT} tokens:\n\n\
             | | median | p99 | largest | p99 to median |\n|---|---|---|---|---|\n",
            STREAMS.len(),
            self.parts.len()
        );
        for (name, values) in self.rows() {
            let [median, p99, largest] = [0.5, 0.99, 1.0].map(|part| quantile(&values, part));
            let ms = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
            out += &format!("| {name} | {} | {} | {} | {:.2} |\n", ms(median), ms(p99), ms(largest), p99 / median);
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let row = |(name, values): (&str, Vec<f64>)| json!({"name": name, "unit": "s", "values": values});
        json!({"streams": STREAMS.len(), "rank": RANK, "rows": self.rows().map(row)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_both_of_its_parts() {
        let swaps = Swaps { parts: vec![[0.02, 0.01]; 3], quiet: vec![0.01; 9], swapping: vec![0.01, 0.02] };
        let markdown = swaps.markdown();
        assert!(markdown.contains("first token | 30.0 ms | 30.0 ms | 30.0 ms | 1.00 |"), "{markdown}");
        assert!(markdown.contains("pause | 20.0 ms | 20.0 ms | 20.0 ms | 1.00 |"), "{markdown}");
    }
}

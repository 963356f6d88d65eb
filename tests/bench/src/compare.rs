//! The swarm beside llama.cpp's server: the same model, prompts and adapters, over HTTP, in turns.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    ANSWER, LONG_PROMPT, Mix, PROMPT, RANK,
    adapters::RandomAdapter,
    agree,
    bandwidth::{self, Reads},
    llama::{LlamaOptions, LlamaServer},
    load::{Endpoint, LoadResult, Request},
    lora_gguf,
    prompts::Prompts,
    run::Run,
    served::{Served, Swarm},
    table::{Comparison, Row, Table, quantile},
};

/// Streams of the largest case, and so adapters that are made.
const STREAMS_MAX: usize = 32;

/// What both servers are asked.
pub(crate) struct Case {
    pub(crate) id: &'static str,
    name: &'static str,
    pub(crate) streams: usize,
    pub(crate) mix: Mix,
    prompt: usize,
    answer: usize,
}

/// One turn of one server.
pub(crate) struct Sample {
    /// Answered tokens a second, waiting for the first ones included.
    pub(crate) rate: f64,
    /// Decoded tokens a second while all streams decode; of one token there is none.
    decode_rate: f64,
    /// Seconds to the first token: the median of the streams.
    first_token: f64,
    /// Seconds between tokens of a stream.
    pub(crate) gap_p50: f64,
    pub(crate) gap_p99: f64,
}

/// A case and what was measured, a sample a turn.
pub(crate) struct Measured {
    pub(crate) case: Case,
    pub(crate) ours: Vec<Sample>,
    pub(crate) theirs: Vec<Sample>,
}

/// Everything of the comparison.
pub(crate) struct Comparisons {
    pub(crate) measured: Vec<Measured>,
    bandwidths: Vec<f64>,
    weight_bytes: [u64; 2],
}

/// The program and the model in the form that is fastest for it.
#[derive(Debug, Clone)]
pub(crate) struct Opponent {
    pub(crate) program: PathBuf,
    pub(crate) model: PathBuf,
}

fn cases() -> Vec<Case> {
    let decoding = |id, name, streams, mix| Case { id, name, streams, mix, prompt: PROMPT, answer: ANSWER };
    vec![
        decoding("llama/base-1", "1 stream, base", 1, Mix::Base),
        decoding("llama/base-2", "2 streams, base", 2, Mix::Base),
        decoding("llama/base-4", "4 streams, base", 4, Mix::Base),
        decoding("llama/base-8", "8 streams, base", 8, Mix::Base),
        decoding("llama/base-16", "16 streams, base", 16, Mix::Base),
        decoding("llama/base-32", "32 streams, base", STREAMS_MAX, Mix::Base),
        decoding("llama/same-1", "1 stream, rank-16 adapter", 1, Mix::Same),
        decoding("llama/same-8", "8 streams, same rank-16 adapter", 8, Mix::Same),
        decoding("llama/distinct-8", "8 streams, 8 distinct rank-16 adapters", 8, Mix::Distinct),
        decoding("llama/distinct-32", "32 streams, 32 distinct rank-16 adapters", STREAMS_MAX, Mix::Distinct),
        Case {
            id: "llama/prompt-512",
            name: "prompt of 512 tokens",
            streams: 1,
            mix: Mix::Base,
            prompt: LONG_PROMPT,
            answer: 1,
        },
    ]
}

/// Measures the selected cases; `None` when there are none.
pub(crate) async fn measure(run: &Run, opponent: &Opponent) -> Result<Option<Comparisons>> {
    let cases: Vec<_> = cases().into_iter().filter(|case| run.only.has(case.id)).collect();
    if cases.is_empty() {
        return Ok(None);
    }
    let dir = run.folder("llama")?;
    if run.model.is_trained() {
        agree::check(&run.slm, &opponent.program, &dir, &run.model).await?;
    }
    let (peft, gguf) = adapters(run, &dir)?;
    let swarm = Swarm {
        model: run.model.path().to_owned(),
        sequences: STREAMS_MAX,
        rank_max: RANK,
        adapters: peft,
        guesses: false,
    };
    let ours = Served::start(&run.slm, &dir.join("manifest"), &swarm).await?;
    let wanted = LlamaOptions { model: opponent.model.clone(), sequences: STREAMS_MAX, adapters: gguf };
    let theirs = LlamaServer::start(&opponent.program, &dir.join("llama.log"), &wanted).await?;
    let weight_bytes = [bandwidth::weight_bytes(&run.model.bundle)?, theirs.weight_bytes().await?];

    let mut prompts = Prompts::new(&run.model.bundle)?;
    let measured = cases.into_iter().map(|case| Measured { case, ours: Vec::new(), theirs: Vec::new() });
    let mut all = Comparisons { measured: measured.collect(), bandwidths: Vec::new(), weight_bytes };
    for turn in 0..=run.repeat {
        let bandwidth = bandwidth::measure();
        if turn > 0 {
            all.bandwidths.push(bandwidth);
        }
        for measured in &mut all.measured {
            let (our, their) = measured.case.turn(turn, &ours.endpoint, &theirs.endpoint, &mut prompts).await?;
            eprintln!(
                "turn {turn} of {}: {}: {:.0} tok/s, llama-server {:.0} tok/s",
                run.repeat,
                measured.case.name,
                measured.case.rate(&our),
                measured.case.rate(&their)
            );
            // The first turn warms caches and pages up.
            if turn > 0 {
                measured.ours.push(our);
                measured.theirs.push(their);
            }
        }
    }
    ours.stop().await?;
    theirs.stop().await?;
    Ok(Some(all))
}

/// Writes the same adapters as PEFT's folders and as llama.cpp's files.
fn adapters(run: &Run, dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let config = &run.model.bundle.info.architecture;
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for i in 0..STREAMS_MAX {
        let adapter = RandomAdapter::new(config, RANK, i as u64);
        let (folder, file) = (dir.join(format!("adapter-{i}")), dir.join(format!("adapter-{i}.gguf")));
        adapter.write_peft(&folder)?;
        lora_gguf::write(&file, &adapter, &run.model)?;
        folders.push(folder);
        files.push(file);
    }
    Ok((folders, files))
}

impl Case {
    /// Both servers with the same prompts, each first in every other turn.
    async fn turn(
        &self,
        turn: usize,
        ours: &Endpoint,
        theirs: &Endpoint,
        prompts: &mut Prompts,
    ) -> Result<(Sample, Sample)> {
        let prompts = prompts.next(self.streams, self.prompt);
        let request =
            |(stream, prompt)| Request { prompt, adapter: self.mix.adapter(stream), answer: self.answer, rule: None };
        let requests: Vec<_> = prompts.into_iter().enumerate().map(request).collect();
        if turn.is_multiple_of(2) {
            let our = Sample::of(&ours.run(&requests).await?)?;
            Ok((our, Sample::of(&theirs.run(&requests).await?)?))
        } else {
            let their = Sample::of(&theirs.run(&requests).await?)?;
            Ok((Sample::of(&ours.run(&requests).await?)?, their))
        }
    }

    /// Tokens a second of what the case is about: the prompt's, or the answers'.
    fn rate(&self, sample: &Sample) -> f64 {
        if self.is_prompt() { self.prompt as f64 / sample.first_token } else { sample.rate }
    }

    /// Only the first token is wanted.
    pub(crate) fn is_prompt(&self) -> bool {
        self.answer == 1
    }
}

impl Sample {
    fn of(load: &LoadResult) -> Result<Self> {
        let gaps = load.gaps();
        Ok(Self {
            rate: load.rate(),
            decode_rate: load.decode_rate()?,
            first_token: quantile(&load.first_tokens(), 0.5),
            gap_p50: quantile(&gaps, 0.5),
            gap_p99: quantile(&gaps, 0.99),
        })
    }

    fn json(&self) -> Value {
        json!({
            "tokens_per_second": self.rate, "decoded_per_second": self.decode_rate, "first_token_s": self.first_token,
            "gap_p50_s": self.gap_p50, "gap_p99_s": self.gap_p99,
        })
    }
}

impl Measured {
    fn row(&self, mut row: Row, figure: impl Fn(&Sample) -> f64) -> Row {
        for (our, their) in self.ours.iter().zip(&self.theirs) {
            row.add(figure(their), figure(our));
        }
        row
    }

    /// The lines that a case has in the table.
    fn rows(&self) -> Vec<Row> {
        let case = &self.case;
        let mut rows = vec![self.row(Row::rate(case.name), |sample| case.rate(sample))];
        if case.id == "llama/base-8" {
            let name = format!("time to first token, {}, p50", case.name);
            rows.push(self.row(Row::time(&name), |sample| sample.first_token));
        }
        rows
    }
}

impl Comparisons {
    pub(crate) fn table(&self) -> Table {
        Table {
            title: "Beside llama-server".to_owned(),
            sides: ["llama-server", "slm up"],
            comparison: Comparison::Ratio,
            rows: self.measured.iter().flat_map(Measured::rows).collect(),
        }
    }

    /// What one stream reads of the weights, where that case was measured.
    pub(crate) fn memory(&self) -> Option<(&[f64], [Reads; 2])> {
        let one = self.measured.iter().find(|measured| measured.case.id == "llama/base-1")?;
        let [our_bytes, their_bytes] = self.weight_bytes;
        let reads = |side, weight_bytes, samples: &[Sample]| Reads {
            side,
            weight_bytes,
            steps: samples.iter().map(|sample| sample.decode_rate).collect(),
        };
        let sides = [reads("llama-server", their_bytes, &one.theirs), reads("slm up", our_bytes, &one.ours)];
        Some((&self.bandwidths, sides))
    }

    pub(crate) fn json(&self) -> Value {
        let samples = |samples: &[Sample]| samples.iter().map(Sample::json).collect::<Vec<_>>();
        let case = |measured: &Measured| {
            json!({
                "id": measured.case.id, "name": measured.case.name, "streams": measured.case.streams,
                "slm up": samples(&measured.ours), "llama-server": samples(&measured.theirs),
            })
        };
        json!(self.measured.iter().map(case).collect::<Vec<_>>())
    }
}

//! What a worker need not compute again: prompts that begin alike, and what a text says twice.

use anyhow::Result;

use crate::{
    ANSWER, PROMPT,
    load::{Endpoint, Request},
    prompts::Prompts,
    run::Run,
    served::{Served, Swarm},
    table::{Comparison, Row, Table},
};

/// Tokens that two prompts have in common, and that each has of its own.
const COMMON: usize = 400;
const OWN: usize = 16;
/// Tokens that a text goes round.
const ROUND: usize = 16;

/// Measures both at one stream, when they are selected.
pub(crate) async fn measure(run: &Run) -> Result<Option<Table>> {
    if !run.only.has("reuse") {
        return Ok(None);
    }
    let dir = run.folder("reuse")?;
    let start = async |name: &str, guesses| {
        let swarm =
            Swarm { model: run.model.path().to_owned(), sequences: 1, rank_max: 1, adapters: Vec::new(), guesses };
        Served::start(&run.slm, &dir.join(name), &swarm).await
    };
    let (plain, guessing) = (start("plain", false).await?, start("guessing", true).await?);
    let mut prompts = Prompts::new(&run.model.bundle)?;
    let mut rows = [
        Row::time(&format!("time to first token, {COMMON} tokens of the prompt seen before")),
        Row::rate("speculative decoding by prompt lookup, text that repeats itself"),
        Row::rate("speculative decoding by prompt lookup, any text"),
    ];
    for turn in 0..=run.repeat {
        let common = prompts.one(COMMON);
        let [first, again] = [prompts.one(OWN), prompts.one(OWN)].map(|own| [common.clone(), own].concat());
        let (first, again) = (first_token(&plain.endpoint, first).await?, first_token(&plain.endpoint, again).await?);
        let round = prompts.one(ROUND).repeat(PROMPT / ROUND);
        let any = prompts.one(PROMPT);
        let mut rates = Vec::new();
        for prompt in [round, any] {
            rates.push((decode(&plain.endpoint, &prompt).await?, decode(&guessing.endpoint, &prompt).await?));
        }
        if turn > 0 {
            rows[0].add(first, again);
            rows[1].add(rates[0].0, rates[0].1);
            rows[2].add(rates[1].0, rates[1].1);
        }
        eprintln!("reuse: turn {turn} of {}", run.repeat);
    }
    plain.stop().await?;
    guessing.stop().await?;
    let title = "What was there before, at 1 stream".to_owned();
    Ok(Some(Table { title, sides: ["without", "with"], comparison: Comparison::Ratio, rows: rows.into() }))
}

async fn first_token(endpoint: &Endpoint, prompt: Vec<u32>) -> Result<f64> {
    let load = endpoint.ask(Request { prompt, adapter: None, answer: 1, rule: None }).await?;
    Ok(load.first_tokens()[0])
}

async fn decode(endpoint: &Endpoint, prompt: &[u32]) -> Result<f64> {
    endpoint.ask(Request { prompt: prompt.to_vec(), adapter: None, answer: ANSWER, rule: None }).await?.decode_rate()
}

//! What an adapter costs the one stream that uses it, and those that do not.

use anyhow::Result;

use crate::{
    ANSWER, PROMPT, adapters,
    load::{Endpoint, Request},
    prompts::Prompts,
    run::Run,
    served::{Served, Swarm},
    table::{Comparison, Row, Table},
};

const RANK: usize = 8;

/// Measures decoding at one stream, when it is selected.
pub(crate) async fn measure(run: &Run) -> Result<Option<Table>> {
    if !run.only.has("adapter") {
        return Ok(None);
    }
    let dir = run.folder("cost")?;
    let adapter = dir.join("adapter-0");
    adapters::write(&adapter, &run.model.bundle.info.architecture, RANK, 0)?;
    let start = async |name: &str, adapters| {
        Served::start(
            &run.slm,
            &dir.join(name),
            &Swarm { model: run.model.path().to_owned(), sequences: 1, rank_max: RANK, adapters, guesses: false },
        )
        .await
    };
    let without = start("without", Vec::new()).await?;
    let with = start("with", vec![adapter]).await?;

    let mut prompts = Prompts::new(&run.model.bundle)?;
    let mut rows = [Row::rate("rank-8 adapter loaded, not used"), Row::rate("rank-8 adapter used")];
    for turn in 0..=run.repeat {
        let prompt = prompts.one(PROMPT);
        let base = decode(&without.endpoint, &prompt, None).await?;
        let unused = decode(&with.endpoint, &prompt, None).await?;
        let used = decode(&with.endpoint, &prompt, Some(0)).await?;
        if turn > 0 {
            rows[0].add(base, unused);
            rows[1].add(base, used);
        }
        eprintln!("cost of an adapter: turn {turn} of {}: {base:.0}, {unused:.0}, {used:.0} tok/s", run.repeat);
    }
    without.stop().await?;
    with.stop().await?;
    let title = "Cost of an adapter, decoding at 1 stream".to_owned();
    let sides = ["base, no adapter loaded", "here"];
    Ok(Some(Table { title, sides, comparison: Comparison::Share, rows: rows.into() }))
}

async fn decode(endpoint: &Endpoint, prompt: &[u32], adapter: Option<usize>) -> Result<f64> {
    endpoint.ask(Request { prompt: prompt.to_vec(), adapter, answer: ANSWER, rule: None }).await?.decode_rate()
}

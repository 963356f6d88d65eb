//! What a request costs beyond the steps that compute it: the swarm through HTTP beside the bare session.

use anyhow::Result;

use crate::{
    ANSWER, LONG_PROMPT, Mix, PROMPT, RANK, STREAMS,
    bare::Bare,
    load::{Endpoint, Request},
    prompts::Prompts,
    run::Run,
    served::{Served, Swarm},
    table::{Comparison, Row, Table},
};

const DECODING: [(&str, &str, usize, Mix); 5] = [
    ("step/base-1", "1 stream, base", 1, Mix::Base),
    ("step/same-1", "1 stream, rank-16 adapter", 1, Mix::Same),
    ("step/base-8", "8 streams, base", STREAMS, Mix::Base),
    ("step/same-8", "8 streams, same rank-16 adapter", STREAMS, Mix::Same),
    ("step/distinct-8", "8 streams, 8 distinct rank-16 adapters", STREAMS, Mix::Distinct),
];
const FIRST_TOKEN: &str = "step/first-token";

/// Measures the selected rows; `None` when there are none.
pub(crate) async fn measure(run: &Run) -> Result<Option<Table>> {
    let decoding: Vec<_> = DECODING.into_iter().filter(|(id, ..)| run.only.has(id)).collect();
    let mut waiting = run.only.has(FIRST_TOKEN).then(|| Row::time("time to first token, 512 prompt tokens"));
    if decoding.is_empty() && waiting.is_none() {
        return Ok(None);
    }
    let dir = run.folder("step")?;
    let mut bare = Bare::open(&dir, &run.model.bundle)?;
    let adapters = (0..STREAMS).map(|i| dir.join(format!("adapter-{i}"))).collect();
    let swarm =
        Swarm { model: run.model.path().to_owned(), sequences: STREAMS, rank_max: RANK, adapters, guesses: false };
    let served = Served::start(&run.slm, &dir.join("manifest"), &swarm).await?;
    let prompt = bare.prompt(LONG_PROMPT);
    // The swarm may keep prompts that it has seen, the bare session does not: each of its prompts is a new one.
    let mut prompts = Prompts::new(&run.model.bundle)?;

    let mut rows: Vec<Row> = decoding.iter().map(|(_, name, ..)| Row::rate(name)).collect();
    for turn in 0..=run.repeat {
        for (row, &(_, _, streams, mix)) in rows.iter_mut().zip(&decoding) {
            let bare = bare.decode(streams, mix, &prompt[..PROMPT])?;
            let served = decode(&served.endpoint, mix, prompts.next(streams, PROMPT)).await?;
            // The first turn warms caches and pages up.
            if turn > 0 {
                row.add(bare, served);
            }
        }
        if let Some(row) = &mut waiting {
            let bare = bare.first_token(&prompt)?;
            let asked = Request { prompt: prompts.one(LONG_PROMPT), adapter: None, answer: 1, rule: None };
            let served = served.endpoint.ask(asked).await?.first_tokens()[0];
            if turn > 0 {
                row.add(bare, served);
            }
        }
        eprintln!("bare step: turn {turn} of {}", run.repeat);
    }
    served.stop().await?;
    rows.extend(waiting);
    let title = "The server beside the bare step".to_owned();
    Ok(Some(Table { title, sides: ["bare step", "through HTTP"], comparison: Comparison::Share, rows }))
}

/// Decoded tokens a second of a request for each prompt while all of them run.
async fn decode(endpoint: &Endpoint, mix: Mix, prompts: Vec<Vec<u32>>) -> Result<f64> {
    let request = |(stream, prompt)| Request { prompt, adapter: mix.adapter(stream), answer: ANSWER, rule: None };
    let requests: Vec<_> = prompts.into_iter().enumerate().map(request).collect();
    endpoint.run(&requests).await?.decode_rate()
}

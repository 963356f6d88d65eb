//! What a JSON Schema costs streams whose answers it describes.

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    ANSWER, PROMPT, STREAMS,
    load::{Endpoint, Request},
    prompts::Prompts,
    run::Run,
    served::{Served, Swarm},
    table::{Comparison, Row, Table},
};

/// Measures decoding at [`STREAMS`] streams, when it is selected.
pub(crate) async fn measure(run: &Run) -> Result<Option<Table>> {
    if !run.only.has("constrained") {
        return Ok(None);
    }
    let model = run.model.path().to_owned();
    let swarm = Swarm { model, sequences: STREAMS, rank_max: 1, adapters: Vec::new(), guesses: false };
    let served = Served::start(&run.slm, &run.folder("constrained")?, &swarm).await?;
    let mut prompts = Prompts::new(&run.model.bundle)?;
    let mut rows = [Row::rate(&format!("{STREAMS} streams of JSON"))];
    for turn in 0..=run.repeat {
        let prompts: Vec<_> = (0..STREAMS).map(|_| prompts.one(PROMPT)).collect();
        let free = decode(&served.endpoint, &prompts, None).await?;
        let constrained = decode(&served.endpoint, &prompts, Some(schema())).await?;
        // The first compiles the schema.
        if turn > 0 {
            rows[0].add(free, constrained);
        }
        eprintln!("constrained: turn {turn} of {}: {free:.0}, {constrained:.0} tok/s", run.repeat);
    }
    served.stop().await?;
    let title = format!("Cost of a constraint, decoding at {STREAMS} streams (bar: 92 %)");
    Ok(Some(Table { title, sides: ["free", "constrained"], comparison: Comparison::Share, rows: rows.into() }))
}

/// Of documents that are longer than an answer.
fn schema() -> Value {
    let person = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "role": {"enum": ["reader", "writer", "owner"]}, "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "age", "role", "tags"], "additionalProperties": false,
    });
    json!({"type": "array", "items": person, "minItems": 200})
}

async fn decode(endpoint: &Endpoint, prompts: &[Vec<u32>], rule: Option<Value>) -> Result<f64> {
    let request =
        |prompt: &Vec<u32>| Request { prompt: prompt.clone(), adapter: None, answer: ANSWER, rule: rule.clone() };
    let requests: Vec<Request> = prompts.iter().map(request).collect();
    endpoint.run(&requests).await?.decode_rate()
}

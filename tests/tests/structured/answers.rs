//! What comes out is what was asked for.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use slm_proto::v1::{FinishReason, JsonObject, generate_response::Event, sampling::Constraint};

use super::{
    harness::{choice, complete, is_whole, regex, request, schema, worker},
    schemas,
};

/// Whole documents, unless `SLM_SCHEMAS` says how many.
const SCHEMAS: u64 = 64;
const PROMPT: &str = "Give me an example as JSON.";

fn check(text: &str, schema: &Value) -> Result<()> {
    let validator = jsonschema::options().should_validate_formats(true).build(schema)?;
    let document: Value = serde_json::from_str(text).with_context(|| format!("{text}\nfor {schema}"))?;
    let wrong: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    ensure!(wrong.is_empty(), "{text}\nis not of {schema}:\n{wrong:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_validate_against_schemas_of_every_kind() -> Result<()> {
    let worker = worker(true).await?;
    let one = |seed| {
        let worker = &worker;
        async move {
            let wanted = schemas::random(seed);
            let asked = request(PROMPT, seed, 600, schema(&wanted));
            let completion = complete(worker, asked).await.with_context(|| format!("schema {seed}: {wanted}"))?;
            if is_whole(&completion) {
                check(&completion.text, &wanted).with_context(|| format!("schema {seed}"))?;
            } else {
                println!("schema {seed} was cut: {}", completion.text);
            }
            anyhow::Ok(is_whole(&completion))
        }
    };
    let wanted = std::env::var("SLM_SCHEMAS").map_or(Ok(SCHEMAS), |wanted| wanted.parse())?;
    // A document that max_tokens cuts is no document; few are so long.
    let mut answers = stream::iter(0..wanted + wanted / 8).map(one).buffer_unordered(8);
    let (mut whole, mut cut) = (0, 0);
    while whole < wanted {
        match answers.try_next().await?.with_context(|| format!("{cut} of {} documents were cut", whole + cut))? {
            true => whole += 1,
            false => cut += 1,
        }
    }
    drop(answers);
    println!("{whole} documents are whole, and all of them validate; {cut} were cut");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_constraint_is_kept() -> Result<()> {
    let worker = worker(true).await?;
    for seed in 0..4 {
        let ask = |constraint| complete(&worker, request("What do you think of Paris?", seed, 200, constraint));
        let cities = ["Paris", "Parma", "Rome"];
        let chosen = ask(choice(&cities)).await?;
        assert!(cities.contains(&chosen.text.as_str()) && is_whole(&chosen), "{chosen:?}");
        let number = ask(regex("[0-9]{3}-[0-9]{4}")).await?;
        assert!(number.text.len() == 8 && &number.text[3..4] == "-" && is_whole(&number), "{number:?}");
        let sum =
            ask(Some(Constraint::Grammar("start: NUMBER (\"+\" NUMBER)* \"=\"\nNUMBER: /[0-9]{1,2}/".into()))).await?;
        assert!(sum.text.chars().all(|letter| "0123456789+=".contains(letter)), "{sum:?}");
        let object = ask(Some(Constraint::JsonObject(JsonObject {}))).await?;
        if is_whole(&object) {
            assert!(serde_json::from_str::<Value>(&object.text)?.is_object(), "{object:?}");
        }
    }
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_and_streams_change_nothing_about_an_answer() -> Result<()> {
    let (plain, drafting) = (worker(false).await?, worker(true).await?);
    let item = json!({
        "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "visited": {"type": "boolean"}},
        "required": ["city", "visited"], "additionalProperties": false,
    });
    let wanted = json!({"type": "array", "items": item, "minItems": 6, "maxItems": 8});
    for seed in 0..3 {
        let asked = request("List cities again and again.", seed, 400, schema(&wanted));
        let (first, second) = (complete(&plain, asked.clone()).await?, complete(&drafting, asked.clone()).await?);
        assert_eq!(first.text, second.text, "seed {seed}");
        check(&first.text, &wanted)?;
        let mut events = drafting.generation.clone().generate(asked).await?.into_inner();
        let mut text = String::new();
        while let Some(response) = events.message().await? {
            if let Some(Event::Delta(delta)) = response.event {
                text += &delta.text;
            }
        }
        assert_eq!(text, first.text, "seed {seed}");
    }
    plain.stop().await?;
    drafting.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn other_parameters_work_with_a_constraint() -> Result<()> {
    let worker = worker(true).await?;
    let wanted = json!({"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 5, "maxItems": 9});
    let base = || request("Name colours.", 1, 300, schema(&wanted));
    let cut = complete(&worker, {
        let mut cut = base();
        cut.max_tokens = Some(4);
        cut
    })
    .await?;
    assert_eq!(cut.reason(), FinishReason::Length);
    assert!(cut.text.starts_with('[') && serde_json::from_str::<Value>(&cut.text).is_err(), "{cut:?}");

    let mut stopped = base();
    stopped.stop = vec!["\"".into()];
    let stopped = complete(&worker, stopped).await?;
    assert!(is_whole(&stopped) && stopped.text.trim() == "[", "{stopped:?}");

    let mut penalised = base();
    let sampling = penalised.sampling.as_mut().context("sampling")?;
    (sampling.repetition_penalty, sampling.frequency_penalty, sampling.top_p) = (Some(1.3), Some(0.5), Some(0.9));
    penalised.logprobs = Some(5);
    penalised.ignore_eos = true;
    let penalised = complete(&worker, penalised).await?;
    check(&penalised.text, &wanted)?;
    let sums = penalised.logprobs.iter().map(|token| token.top.iter().map(|top| top.logprob.exp()).sum::<f32>());
    assert!(sums.into_iter().all(|sum| sum <= 1.001), "of the allowed tokens");
    assert!(penalised.logprobs.iter().flat_map(|token| &token.top).all(|top| top.logprob.is_finite()));

    // The likeliest answer to it is biased away.
    let yes_or_no = |bias: &[(u32, f32)]| {
        let mut asked = request("Say yes.", 1, 8, choice(&["yes", "no"]));
        let sampling = asked.sampling.get_or_insert_default();
        (sampling.temperature, sampling.logit_bias) = (Some(0.0), bias.iter().copied().collect());
        asked.logprobs = Some(0);
        asked
    };
    let plain = complete(&worker, yes_or_no(&[])).await?;
    let first = plain.logprobs.first().context("a token")?.id;
    let biased = complete(&worker, yes_or_no(&[(first, -100.0)])).await?;
    assert_ne!(biased.logprobs.first().context("a token")?.id, first, "{plain:?} {biased:?}");
    assert!(["yes", "no"].contains(&biased.text.as_str()));
    worker.stop().await
}

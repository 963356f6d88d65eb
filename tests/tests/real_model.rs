//! SmolLM2-135M and Gemma 3 270M against the reference: tokens, greedy answers, perplexity.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use slm_convert::graph::Precision;
use slm_tests::{
    real::{Model, backend},
    sequence::{Sequence, step},
};
use slm_worker::{runtime::LogitsRequest, sample::argmax, score::perplexity};

/// Debian's copy of the text that the reference was scored on.
const GPL3: &str = "/usr/share/common-licenses/GPL-3";

fn score(model: Model, precision: Precision) -> Result<f64> {
    let bundle = model.bundle(precision)?;
    let text = fs::read_to_string(Path::new(GPL3)).context(GPL3)?;
    let tokenizer = bundle.tokenizer()?.context("no tokenizer")?;
    let encoding = tokenizer.encode_fast(text, true).map_err(anyhow::Error::msg)?;
    let mut backend = backend(&bundle, 1, 1024)?;
    Ok(perplexity(&mut *backend, &encoding.get_ids()[..1024], None, &mut |_| ())?)
}

/// Compares the perplexity with the reference's: `tolerance` is relative.
fn perplexity_is_near(model: Model, precision: Precision, tolerance: f64) -> Result<()> {
    let (ours, reference) = (score(model, precision)?, model.reference()?.ppl_gpl3_1024);
    let difference = ours / reference - 1.0;
    println!("{model:?} {precision:?}: {ours:.4}, reference {reference:.4}: {:+.2} %", difference * 100.0);
    assert!(difference.abs() < tolerance, "{ours} against {reference}");
    Ok(())
}

#[test]
fn perplexity_in_f32_is_that_of_the_reference() -> Result<()> {
    perplexity_is_near(Model::SmolLm2, Precision::F32, 0.005)
}

#[test]
fn perplexity_in_int4_is_that_of_the_files_own_weights() -> Result<()> {
    perplexity_is_near(Model::SmolLm2, Precision::Int4, 0.015)?;
    // All four types of the file are carried over exactly; what differs are activations in 8 bits.
    perplexity_is_near(Model::Gemma3, Precision::Int4, 0.006)
}

#[test]
fn greedy_answers_in_f32_are_those_of_the_reference() -> Result<()> {
    answers_are_those_of_the_reference(Model::SmolLm2)?;
    answers_are_those_of_the_reference(Model::Gemma3)
}

fn answers_are_those_of_the_reference(model: Model) -> Result<()> {
    let bundle = model.bundle(Precision::F32)?;
    let mut backend = backend(&bundle, 1, 256)?;
    let geometry = backend.geometry();
    for prompt in model.reference()?.prompts {
        let mut sequence = [Sequence::new(&geometry, 0, 256, None)];
        sequence[0].push(&prompt.ids);
        let logits = step(&mut *backend, &mut sequence, LogitsRequest::Last)?;
        let largest = prompt.top5_logits[0].abs();
        for (&id, &expected) in prompt.top5_ids.iter().zip(&prompt.top5_logits) {
            let ours = logits[id as usize];
            assert!((ours - expected).abs() / largest < 1e-3, "{:?}: token {id}: {ours} for {expected}", prompt.text);
        }
        let (mut token, _) = argmax(logits).context("no largest logit")?;
        let mut answer = vec![token];
        while answer.len() < prompt.greedy_ids.len() {
            sequence[0].push(&[token]);
            let logits = step(&mut *backend, &mut sequence, LogitsRequest::Last)?;
            token = argmax(logits).context("no largest logit")?.0;
            answer.push(token);
        }
        assert_eq!(answer, prompt.greedy_ids, "{:?}", prompt.text);
    }
    Ok(())
}

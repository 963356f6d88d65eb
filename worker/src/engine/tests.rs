//! Constrained answers over a scripted backend of single bytes.

use std::{sync::Arc, time::Duration};

use slm_proto::v1::sampling::Constraint;

use super::*;
use crate::{
    constrain::{Constraints, Rule},
    runtime::{Chunk, Geometry, SessionError},
    text::TokenBytes,
};

const VOCAB: usize = 257;
const END: u32 = 256;

/// Wants to go on as `script` does after the last letters of the step, two at most; else with `x`.
struct Scripted {
    script: &'static [u8],
    rows: Vec<f32>,
}

impl Scripted {
    fn after(&self, tokens: &[u32]) -> Vec<f32> {
        let mut row = vec![0.0; VOCAB];
        row[usize::from(b'x')] = 1.0;
        row[END as usize] = 0.5;
        let last: Vec<u8> = tokens.iter().rev().take(2).rev().map(|token| *token as u8).collect();
        let found = self.script.windows(last.len()).position(|window| window == last);
        if let Some(next) = found.and_then(|at| self.script.get(at + last.len())) {
            row[usize::from(*next)] = 2.0;
        }
        row
    }
}

impl Backend for Scripted {
    fn geometry(&self) -> Geometry {
        Geometry {
            context_length: 256,
            page: 32,
            pages: 64,
            logits: 24,
            vocab_size: VOCAB,
            states: 0,
            shares_pages: false,
            drafts: true,
        }
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<usize, SessionError> {
        self.rows.clear();
        for chunk in chunks {
            let wanted = chunk.logits.count(chunk.tokens.len());
            for end in chunk.tokens.len() - wanted..chunk.tokens.len() {
                let row = self.after(&chunk.tokens[..=end]);
                self.rows.extend(row);
            }
        }
        Ok(self.rows.len() / VOCAB)
    }

    fn row(&mut self, row: usize) -> Result<&[f32], SessionError> {
        Ok(&self.rows[row * VOCAB..(row + 1) * VOCAB])
    }

    fn rows(&mut self) -> Result<&[f32], SessionError> {
        Ok(&self.rows)
    }
}

fn engine(script: &'static [u8], prompt_lookup: bool) -> Engine {
    let config = EngineConfig {
        sequences_max: 4,
        queue_max: 4,
        unread_max: 8,
        prefix_pages: 0,
        prompt_lookup,
        step_max: Duration::from_millis(100),
    };
    Engine::start(Box::new(Scripted { script, rows: Vec::new() }), config).unwrap().0
}

fn constraints(letters: &[u8]) -> Constraints {
    let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
    let mut tokens: Vec<&[u8]> = bytes
        .iter()
        .map(|byte| if letters.is_empty() || letters.contains(&byte[0]) { &byte[..] } else { &[] })
        .collect();
    tokens.push(b"</s>");
    Constraints::new(Arc::new(TokenBytes::of(&tokens, &["</s>"])), VOCAB)
}

fn job(constraints: &Constraints, prompt: &str, rule: Option<Constraint>, tokens_max: usize) -> Job {
    let prototype = rule.map(|rule| constraints.compile(&Rule::new(rule).unwrap()).unwrap());
    Job {
        prompt: prompt.bytes().map(u32::from).collect(),
        adapter: None,
        sampling: SamplingParams::GREEDY,
        guide: prototype.map(|prototype| prototype.guide(&[END])),
        tokens_max,
        stop_ids: vec![END],
        priority: 0,
        weight: 1,
        deadline: None,
    }
}

/// The text of an answer, and how it ended.
fn answer(engine: &Engine, job: Job) -> (String, Result<FinishReason, String>) {
    let permit = engine.enter(&"".into(), 0).unwrap();
    let mut events = engine.submit(permit, job).unwrap();
    let mut text = Vec::new();
    loop {
        match events.blocking_recv().expect("the engine goes on") {
            Event::Token { id, .. } => text.push(id as u8),
            Event::Finished { reason, .. } => return (String::from_utf8(text).unwrap(), Ok(reason)),
            Event::Failed(failure) => return (String::from_utf8(text).unwrap(), Err(failure.to_string())),
            Event::Read { .. } | Event::End { .. } => {}
        }
    }
}

fn regex(text: &str) -> Option<Constraint> {
    Some(Constraint::Regex(text.into()))
}

#[test]
fn the_likeliest_of_the_allowed_tokens_come_and_the_answer_ends_by_itself() {
    let (engine, constraints) = (engine(b"abcd", false), constraints(&[]));
    let whole = |text: &str, reason| (text.to_owned(), Ok(reason));
    assert_eq!(answer(&engine, job(&constraints, "ab", None, 3)), whole("cdx", FinishReason::Length));
    assert_eq!(answer(&engine, job(&constraints, "ab", regex("[a-c]{2}[0-9]"), 9)), whole("ca0", FinishReason::Stop));
    assert_eq!(
        answer(&engine, job(&constraints, "ab", regex("c+d"), 2)),
        whole("cd", FinishReason::Stop),
        "both at once"
    );
    assert_eq!(answer(&engine, job(&constraints, "ab", regex("[ab]{9}"), 4)), whole("abab", FinishReason::Length));
    assert_eq!(answer(&engine, job(&constraints, "ab", regex("c?"), 4)), whole("c", FinishReason::Stop));
    assert_eq!(
        answer(&engine, job(&constraints, "zz", regex("(9|)"), 4)),
        whole("", FinishReason::Stop),
        "the likelier end"
    );
}

#[test]
fn drafts_change_no_token_of_a_constrained_answer() {
    // It goes round, and the rule forbids the fifth `c`, where drafts go on.
    let rule = || regex("(abcd){4}ab[xd]{3,6}!");
    let constraints = constraints(&[]);
    let (plain, drafting) = (engine(b"abcdabcd", false), engine(b"abcdabcd", true));
    let first = answer(&plain, job(&constraints, "abcdabcdab", rule(), 60));
    assert_eq!(first.1, Ok(FinishReason::Stop));
    for _ in 0..5 {
        assert_eq!(answer(&drafting, job(&constraints, "abcdabcdab", rule(), 60)), first);
    }
    assert_eq!((plain.stats().drafted, drafting.stats().drafted > 0), (0, true));
    assert!(drafting.stats().drafted_right > 0, "{:?}", drafting.stats());
}

#[test]
fn an_answer_without_a_way_on_fails_alone() {
    let (engine, constraints) = (engine(b"abcd", false), constraints(b"abcdx"));
    let permit = engine.enter(&"".into(), 0).unwrap();
    let mut beside = engine.submit(permit, job(&constraints, "ab", None, 50)).unwrap();
    let (text, failed) = answer(&engine, job(&constraints, "ab", regex("cd7"), 9));
    assert_eq!(text, "cd");
    let failed = failed.unwrap_err();
    assert!(failed.starts_with("regex has led to where no token of the model's vocabulary may follow"), "{failed}");
    let mut tokens = 0;
    while let Some(event) = beside.blocking_recv() {
        tokens += usize::from(matches!(event, Event::Token { .. }));
    }
    assert_eq!(tokens, 50);
}

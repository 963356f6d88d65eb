//! What is found in 500 made-up texts in six languages, and that all of them come back as they were, streamed as well.
//!
//! `make_corpus.py` writes the texts. `cargo test -p slm-redact --test corpus -- --nocapture` prints the figures.
#![allow(clippy::expect_used)] // A test says what it expects.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use slm_redact::{Kind, Redactor, Restorer, Vault};

const CORPUS: &str = include_str!("corpus.jsonl");

#[derive(Deserialize)]
struct Record {
    lang: String,
    text: String,
    /// Kind, first byte, end.
    spans: Vec<(String, usize, usize)>,
}

/// Figures of a kind.
#[derive(Default)]
struct Score {
    wanted: usize,
    found: usize,
    /// Found from the first byte to the last.
    right: usize,
}

impl Score {
    fn recall(&self) -> f64 {
        ratio(self.right, self.wanted)
    }

    fn precision(&self) -> f64 {
        ratio(self.right, self.found)
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    f64::from(u32::try_from(part).expect("few")) / f64::from(u32::try_from(whole).expect("few"))
}

fn records() -> Vec<Record> {
    CORPUS.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

#[test]
fn nearly_all_is_found_and_little_else() {
    let redactor = Redactor::new().expect("patterns");
    let records = records();
    assert_eq!(records.len(), 500);
    assert!(records.iter().filter(|record| record.spans.is_empty()).count() >= 100);
    let mut scores: BTreeMap<&str, Score> = Kind::ALL.iter().map(|kind| (kind.label(), Score::default())).collect();
    let mut leaked = 0;
    for Record { lang, text, spans } in &records {
        let found = redactor.find(text);
        let told: Vec<_> =
            found.iter().map(|found| (found.kind.label().to_owned(), found.range.start, found.range.end)).collect();
        for span in spans {
            let score = scores.get_mut(span.0.as_str()).expect("a kind");
            score.wanted += 1;
            if told.contains(span) {
                score.right += 1;
            } else {
                println!("{lang}: missed {} {:?} in {text:?}", span.0, &text[span.1..span.2]);
            }
            leaked += usize::from((span.1..span.2).any(|at| !found.iter().any(|found| found.range.contains(&at))));
        }
        for span in &told {
            scores.get_mut(span.0.as_str()).expect("a kind").found += 1;
            if !spans.contains(span) {
                println!("{lang}: wrongly {} {:?} in {text:?}", span.0, &text[span.1..span.2]);
            }
        }
    }
    println!("kind    values  found  right  recall  precision");
    for (kind, score) in &scores {
        let (recall, precision) = (score.recall(), score.precision());
        println!(
            "{kind:<7} {:>6} {:>6} {:>6}  {recall:>6.3}  {precision:>9.3}",
            score.wanted, score.found, score.right
        );
    }
    println!("{leaked} values of which a part was not covered by anything found");
    for (kind, score) in scores {
        assert!(score.recall() >= 0.97, "recall of {kind}: {}", score.recall());
        // Of "from version 4.9.6.2 to 4.12.0.9" the second has no word before it that tells it from an address.
        let least = if kind == Kind::IpAddress.label() { 0.92 } else { 0.97 };
        assert!(score.precision() >= least, "precision of {kind}: {}", score.precision());
    }
}

/// A text's vault, and its redacted text.
fn redacted(redactor: &Redactor, text: &str) -> (Arc<Vault>, String) {
    let mut vault = redactor.vault([text]);
    let redacted = vault.redact(text).into_owned();
    (Arc::new(vault), redacted)
}

#[test]
fn texts_come_back_as_they_were() {
    let redactor = Redactor::new().expect("patterns");
    let records = records();
    let mut all = redactor.vault(records.iter().map(|record| record.text.as_str()));
    for Record { text, .. } in &records {
        let (vault, redacted) = redacted(&redactor, text);
        assert_eq!(vault.restore(&redacted), *text);
        let redacted = all.redact(text).into_owned();
        assert_eq!(all.restore(&redacted), *text);
        let json = serde_json::json!({ "message": text, "lines": text.lines().collect::<Vec<_>>() }).to_string();
        let redacted = all.redact_json_text(&json).into_owned();
        assert_eq!(all.restore_json(&redacted), json);
    }
}

#[test]
fn streams_come_back_wherever_they_are_cut() {
    let redactor = Redactor::new().expect("patterns");
    for Record { text, .. } in records() {
        let (vault, redacted) = redacted(&redactor, &text);
        for cut in 0..=redacted.len() {
            let mut restorer = Restorer::text(Arc::clone(&vault));
            if let (Some(first), Some(second)) = (redacted.get(..cut), redacted.get(cut..)) {
                let pieces = [restorer.push(first), restorer.push(second), restorer.finish()];
                assert_eq!(pieces.concat(), text, "cut at {cut}");
                restorer = Restorer::text(Arc::clone(&vault));
            }
            let mut bytes = restorer.push_bytes(&redacted.as_bytes()[..cut]);
            bytes.extend(restorer.push_bytes(&redacted.as_bytes()[cut..]));
            bytes.extend(restorer.finish().bytes());
            assert_eq!(bytes, text.as_bytes(), "cut at byte {cut}");
        }
        let mut restorer = Restorer::text(Arc::clone(&vault));
        let mut given: String = redacted.chars().map(|piece| restorer.push(piece.encode_utf8(&mut [0; 4]))).collect();
        given += &restorer.finish();
        assert_eq!(given, text);
        let mut restorer = Restorer::text(vault);
        let mut given: Vec<u8> = redacted.as_bytes().chunks(1).flat_map(|piece| restorer.push_bytes(piece)).collect();
        given.extend(restorer.finish().bytes());
        assert_eq!(given, text.as_bytes());
    }
}

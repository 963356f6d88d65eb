//! The quickstart's manifests are valid, and its route sends each known utterance to the expert that knows it.
#![allow(clippy::expect_used)] // A test says what it expects.

use std::{collections::HashMap, fs, path::PathBuf};

use serde_json::Value;
use slm_crds::{
    manifest,
    rule::{Budget, Facts, Rule, Turn},
};

fn quickstart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart")
}

/// `(expert, utterance)` of both files of utterances.
fn utterances() -> Vec<(String, String)> {
    let read = |name: &str| -> Value {
        let text = fs::read_to_string(quickstart().join(name)).expect(name);
        serde_json::from_str(&text).expect(name)
    };
    let mut utterances = Vec::new();
    for (file, key) in [("expected.json", "/prompt"), ("train/prompts.json", "/0")] {
        for (expert, cases) in read(file).as_object().expect("experts") {
            for case in cases.as_array().expect("cases") {
                let utterance = case.pointer(key).and_then(Value::as_str).expect("an utterance");
                utterances.push((expert.clone(), utterance.to_owned()));
            }
        }
    }
    utterances
}

#[test]
fn every_utterance_goes_to_its_expert() {
    let manifests = manifest::read(&quickstart()).unwrap_or_else(|problems| panic!("{problems}"));
    let route = &manifests.routes[0].object.spec;
    let rules: Vec<(Rule, &str)> =
        route.rules.iter().map(|rule| (Rule::compile(&rule.when).expect("a rule"), rule.to.name.as_str())).collect();
    let choose = |text: &str| {
        let facts = Facts::new("assistant", text, [Turn { role: "user", content: text }], &HashMap::new());
        let matched = rules.iter().find(|(rule, _)| rule.holds(&facts, &mut Budget::default()).expect("a decision"));
        matched.map_or(route.fallback.name.as_str(), |(_, name)| name)
    };
    let utterances = utterances();
    assert!(utterances.len() >= 36 + 36, "only {} utterances", utterances.len());
    let wrong: Vec<String> = utterances
        .iter()
        .filter(|(expert, text)| choose(text) != expert)
        .map(|(expert, text)| format!("{expert}, not {}: {text}", choose(text)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for text in ["What is the capital of France?", "Write a haiku about the sea.", "hello"] {
        assert_eq!(choose(text), "smollm2", "{text}");
    }
}

//! The quickstart's manifests are valid, and its route leads to every expert that has an adapter. Which utterance goes where, its head
//! decides: `tests/tests/clients.rs` asks it.
#![allow(clippy::expect_used)] // A test says what it expects.

use std::{collections::BTreeSet, fs, path::PathBuf};

use slm_crds::manifest;

fn quickstart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart")
}

#[test]
fn the_route_leads_to_every_expert() {
    let manifests = manifest::read(&quickstart()).unwrap_or_else(|problems| panic!("{problems}"));
    let route = &manifests.routes[0].object.spec;
    let classifier = route.classifier.as_ref().expect("a classifier");
    let targets: BTreeSet<String> = classifier.targets.iter().map(|target| target.name.clone()).collect();
    let folders = fs::read_dir(quickstart().join("adapters")).expect("adapters");
    let folders: BTreeSet<String> =
        folders.map(|entry| entry.expect("a folder").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(targets, folders);
    let experts = manifests.adapters.iter().filter(|adapter| adapter.object.spec.model_ref.name == "smollm2");
    assert_eq!(experts.count(), targets.len());
    let head = fs::read_to_string(quickstart().join("heads/intents/head.json")).expect("a head");
    let head: serde_json::Value = serde_json::from_str(&head).expect("JSON");
    let named: BTreeSet<String> = head["labels"]
        .as_array()
        .expect("labels")
        .iter()
        .map(|label| label["expert"].as_str().expect("an expert").to_owned())
        .collect();
    assert_eq!(targets, named, "the experts of the head's labels");
}

//! What both stores do alike: a folder is indexed, found, changed; and what callers are told when a store is not there.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use slm_crds::retrieve::Retrieve;
use slm_retrieve::{
    chunk::Sizes,
    files::Texts,
    index::{Done, Embed, index},
    secrets::Secrets,
    store::{Store, StoreError},
};

use tokio::task::JoinSet;

use crate::{
    postgres::{Postgres, installed},
    qdrant,
};

const SIZES: Sizes = Sizes { most: 200, overlap: 20 };
const LIMIT: Duration = Duration::from_secs(5);

/// Counts of a few words: alike are texts with the same words.
struct Words(usize);

const WORDS: [&str; 4] = ["opening", "parking", "refund", "café"];

impl Words {
    fn vector(&self, text: &str) -> Vec<f32> {
        let mut vector = vec![0.01; self.0];
        for (place, word) in WORDS.iter().enumerate() {
            vector[place] += if text.to_lowercase().contains(word) { 1.0 } else { 0.0 };
        }
        vector
    }
}

impl Embed for Words {
    type Error = String;

    async fn embed(&self, texts: Vec<String>) -> Result<(Vec<Vec<f32>>, String), String> {
        Ok((texts.iter().map(|text| self.vector(text)).collect(), format!("sha256:{}", self.0)))
    }
}

fn retrieve(source: &Value) -> Retrieve {
    let encoder = json!({ "kind": "SlmModel", "name": "e" });
    serde_json::from_value(json!({ "source": source, "encoder": encoder, "top": 2, "minScore": 0.2 })).expect("a spec")
}

fn store(source: &Value, secrets: PathBuf) -> Store {
    Store::new(&retrieve(source), Secrets(Some(secrets))).expect("a store")
}

fn folder(texts: &[(&str, &str)]) -> Texts {
    let texts = texts.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    Texts { texts, skipped: Vec::new() }
}

/// The life of a store, whichever it is.
async fn lives(store: &Store) {
    let words = Words(8);
    let missing = store.search(&words.vector("parking"), LIMIT).await.expect_err("nothing was made");
    assert!(matches!(missing, StoreError::Refused { .. }), "{missing}");
    let mut told = Vec::new();
    let all = folder(&[
        ("hours.md", "# Opening\nOpening hours are nine to five.\n\n# Parking\nParking is behind the house."),
        ("money.md", "A refund takes three days. It's \"quoted\"; DROP TABLE x; --"),
        ("sub/café.md", "The café has no seats."),
    ]);
    let done = index(store, &words, &all, SIZES, |stored, all| told.push((stored, all))).await.expect("indexed");
    assert_eq!(done, Done { passages: 4, added: 4, removed: 0 });
    assert_eq!(told, [(4, 4)]);
    let again = index(store, &words, &all, SIZES, |_, _| panic!("nothing is new")).await.expect("indexed");
    assert_eq!(again, Done { passages: 4, added: 0, removed: 0 });

    let found = store.search(&words.vector("a refund?"), LIMIT).await.expect("passages");
    assert_eq!(found[0].source, "money.md");
    assert_eq!(found[0].text, "A refund takes three days. It's \"quoted\"; DROP TABLE x; --");
    assert!(found[0].score > 0.99 && found.iter().all(|passage| passage.score >= 0.2), "{found:?}");
    assert_eq!(store.search(&words.vector("CAFÉ"), LIMIT).await.expect("passages")[0].source, "sub/café.md");

    // One file changes, one goes.
    let changed =
        folder(&[("hours.md", "# Opening\nOpening hours are ten to six."), ("sub/café.md", "The café has no seats.")]);
    let done = index(store, &words, &changed, SIZES, |_, _| ()).await.expect("indexed");
    assert_eq!(done, Done { passages: 2, added: 1, removed: 3 });
    let found = store.search(&words.vector("opening"), LIMIT).await.expect("passages");
    assert!(found[0].text.contains("ten to six"), "{found:?}");
    assert_eq!(store.list().await.expect("ids").len(), 2);

    let other = index(store, &Words(9), &changed, SIZES, |_, _| ()).await.expect_err("another encoder");
    assert!(other.to_string().contains("has vectors of 8 numbers, and the encoder makes 9"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pgvector_lives_fails_and_comes_back() {
    let Some(installed) = installed() else { return };
    let mut postgres = tokio::task::spawn_blocking(move || Postgres::start(&installed)).await.expect("a server");
    let source = |table: &str, secret: &str| json!({ "pgvector": { "url": postgres.url(), "table": table, "tls": "Disable", "secretRef": { "name": secret } } });
    let docs = Arc::new(store(&source("docs", "store"), postgres.secrets()));
    lives(&docs).await;
    lives(&store(&source("public.others", "store"), postgres.secrets())).await;
    let unknown = store(&source("docs", "other"), postgres.secrets());
    let refused = unknown.search(&[1.0; 8], LIMIT).await.expect_err("no Secret");
    assert!(refused.to_string().contains("no Secret is named other") && !refused.passes(), "{refused}");
    // A password goes in plain text, or to a server, only where its Secret says so; and without TLS a server is not one with it.
    let tls = json!({ "pgvector": { "url": postgres.url(), "table": "docs" } });
    let refused = store(&tls, postgres.secrets()).search(&[1.0; 8], LIMIT).await.expect_err("no TLS there");
    assert!(matches!(refused, StoreError::Unreachable { .. }), "{refused}");

    // Forty at once share eight connections.
    let vector = Words(8).vector("opening");
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..40 {
        let (docs, vector) = (Arc::clone(&docs), vector.clone());
        all.spawn(async move { docs.search(&vector, LIMIT).await });
    }
    for found in all.join_all().await {
        assert_eq!(found.expect("passages").len(), 1);
    }
    println!("40 searches: {:?}", begun.elapsed());

    postgres.kill();
    let begun = Instant::now();
    // A process of the server that still has a connection answers until it sees that the others are gone.
    let down = loop {
        match docs.search(&vector, LIMIT).await {
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(30), "it is down, and answers"),
            Err(error) => break error,
        }
    };
    println!("down after {:?}: {down}", begun.elapsed());
    assert!(matches!(down, StoreError::Unreachable { .. }) && down.passes(), "{down}");
    assert_eq!(down.for_callers(), "the store of passages cannot be reached");
    let postgres = tokio::task::spawn_blocking(move || {
        postgres.resume();
        postgres
    });
    let _postgres = postgres.await.expect("a server");
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while let Err(error) = docs.search(&vector, LIMIT).await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
        tick.tick().await;
    }
    println!("found again after {:?}", begun.elapsed());
}

#[tokio::test]
async fn qdrant_lives() {
    let url = qdrant::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let secrets = folder.path().join("secrets.yaml");
    let of = |name: &str, key: &str| {
        format!(
            "---\nmetadata: {{name: {name}, annotations: {{slmswarm.io/hosts: '{url}'}}}}\nstringData: {{token: {key}}}\n"
        )
    };
    std::fs::write(&secrets, of("store", "k3y") + &of("wrong", "other")).expect("a file");
    let source =
        |secret: &str| json!({ "qdrant": { "url": url, "collection": "docs", "secretRef": { "name": secret } } });
    lives(&store(&source("store"), secrets.clone())).await;
    let refused = store(&source("wrong"), secrets.clone()).search(&[1.0; 8], LIMIT).await.expect_err("another key");
    assert!(refused.to_string().contains("Invalid API key") && !refused.to_string().contains("other\""), "{refused}");
    let nobody = json!({ "qdrant": { "url": "http://127.0.0.1:1", "collection": "docs" } });
    let down = store(&nobody, secrets).search(&[1.0; 8], LIMIT).await.expect_err("nobody is there");
    assert!(matches!(down, StoreError::Unreachable { .. }), "{down}");
}

#[tokio::test]
async fn a_store_that_says_nothing_is_slow() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    for source in [
        json!({ "qdrant": { "url": format!("http://{address}"), "collection": "docs" } }),
        json!({ "pgvector": { "url": format!("postgres://u@{address}/d"), "table": "docs", "tls": "Disable" } }),
    ] {
        let store = Store::new(&retrieve(&source), Secrets::default()).expect("a store");
        let slow = store.search(&[1.0; 8], Duration::from_millis(100)).await.expect_err("nobody answers");
        assert!(matches!(slow, StoreError::Slow { .. }), "{slow}");
        assert_eq!(slow.for_callers(), "the store of passages did not answer within 100 ms");
    }
}

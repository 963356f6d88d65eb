//! The clients that people use, against the quickstart's own manifests: the official `openai` package, and stubs
//! generated from the published proto.

use std::{collections::BTreeMap, fs, sync::Arc};

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use slm_tests::{
    clients::python,
    swarm::{Call, Folder, Shared, Swarm, repository},
};

static QUICKSTART: Shared<Swarm> = Shared::new();

fn quickstart() -> Result<Arc<Swarm>> {
    QUICKSTART.get(|| Swarm::start(&repository().join("examples/quickstart")))
}

#[test]
fn the_official_openai_client() -> Result<()> {
    let swarm = quickstart()?;
    let expected = repository().join("examples/quickstart/expected.json");
    python("openai_client.py", &[format!("{}/v1", swarm.http), expected.display().to_string()])
}

#[test]
fn the_official_ollama_client() -> Result<()> {
    let swarm = quickstart()?;
    let expected = repository().join("examples/quickstart/expected.json");
    python("ollama_client.py", &[swarm.http.clone(), expected.display().to_string()])
}

#[test]
fn the_official_anthropic_client() -> Result<()> {
    let swarm = quickstart()?;
    let expected = repository().join("examples/quickstart/expected.json");
    python("anthropic_client.py", &[swarm.http.clone(), expected.display().to_string()])
}

/// Every label of `expected.json`, eight at a time.
#[tokio::test]
async fn every_expert_gives_its_labels_in_f32() -> Result<()> {
    let folder = Folder::quickstart("precision: F32, contextLength: 256")?;
    let swarm = Swarm::start(folder.path())?;
    let client = swarm.client()?;
    let expected = fs::read(repository().join("examples/quickstart/expected.json"))?;
    let expected: BTreeMap<String, Vec<Expected>> = serde_json::from_slice(&expected)?;
    let cases: Vec<_> = expected.iter().flat_map(|(name, cases)| cases.iter().map(move |case| (name, case))).collect();
    let (client, asked) = (&client, cases.len());
    let answers = stream::iter(cases).map(|(name, case)| async move {
        let answer = client.ask(&Call::new(name, &case.prompt)).await?;
        anyhow::Ok((answer.text.trim() != case.answer).then(|| format!("{name}: {:?}: {:?}", case.prompt, answer.text)))
    });
    let wrong: Vec<_> = answers.buffer_unordered(8).try_collect().await?;
    let wrong: Vec<_> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty() && asked == 36, "of {asked}: {wrong:#?}");
    Ok(())
}

/// One prompt of `expected.json`.
#[derive(Deserialize)]
struct Expected {
    prompt: String,
    answer: String,
}

#[test]
fn a_client_generated_from_the_proto() -> Result<()> {
    let swarm = quickstart()?;
    let address = swarm.grpc.trim_start_matches("http://").to_owned();
    python("grpc_client.py", &[address, repository().join("proto/proto").display().to_string()])
}

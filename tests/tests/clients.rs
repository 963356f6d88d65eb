//! The clients that people use, against the quickstart's own manifests: the official `openai` package, and stubs
//! generated from the published proto.

use std::sync::Arc;

use anyhow::Result;
use slm_tests::{
    clients::python,
    swarm::{Folder, Shared, Swarm, repository},
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

#[test]
fn the_official_triton_client() -> Result<()> {
    let swarm = quickstart()?;
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let expected = repository().join("examples/quickstart/expected.json");
    python("triton_client.py", &[address(&swarm.grpc), address(&swarm.http), expected.display().to_string()])
}

/// Every label of `expected.json`, eight at a time.
#[tokio::test]
async fn every_expert_gives_its_labels_in_f32() -> Result<()> {
    let folder = Folder::quickstart("precision: F32, contextLength: 256")?;
    let swarm = Swarm::start(folder.path())?;
    let client = swarm.client()?;
    let (asked, wrong) = client.wrong_labels().await?;
    assert!(wrong.is_empty() && asked == 36, "of {asked}: {wrong:#?}");
    Ok(())
}

#[test]
fn a_client_generated_from_the_proto() -> Result<()> {
    let swarm = quickstart()?;
    let address = swarm.grpc.trim_start_matches("http://").to_owned();
    python("grpc_client.py", &[address, repository().join("proto/proto").display().to_string()])
}

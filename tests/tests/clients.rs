//! The clients that people use, against the quickstart's own manifests: the official `openai` package, and stubs
//! generated from the published proto.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use slm_proto::v1::WorkerState;
use slm_tests::{
    clients::python,
    real,
    swarm::{Call, Folder, Labelled, Shared, Swarm, base, labelled, repository, slm, slm_binary, worker_state_until},
};

static QUICKSTART: Shared<Swarm> = Shared::new();

fn quickstart() -> Result<Arc<Swarm>> {
    QUICKSTART.get(|| Swarm::start(&repository().join("examples/quickstart")))
}

/// The route's head, which was trained on other texts, knows whose each of them is, and which are nobody's.
#[tokio::test]
async fn the_route_finds_the_expert() -> Result<()> {
    let client = quickstart()?.client()?;
    let mut wrong = Vec::new();
    let cases = labelled()?;
    let asked = cases.len();
    for Labelled { expert, prompt, .. } in cases {
        let chosen = client.explain(&Call::new("assistant", &prompt)).await?.chosen.context("nobody")?.name;
        if chosen != expert {
            wrong.push(format!("{prompt:?} is for {expert}, not {chosen}"));
        }
    }
    ensure!(asked >= 36 && wrong.len() * 20 <= asked, "{wrong:#?} of {asked}");
    for text in ["who wrote hamlet", "where is the eiffel tower", "prove that there are infinitely many primes"] {
        let chosen = client.explain(&Call::new("assistant", text)).await?.chosen.context("nobody")?.name;
        ensure!(chosen == "smollm2", "{text:?} is for nobody, not for {chosen}");
    }
    Ok(())
}

#[test]
fn the_official_openai_client() -> Result<()> {
    let swarm = quickstart()?;
    let expected = repository().join("examples/quickstart/expected.json");
    python("openai_client.py", &[format!("{}/v1", swarm.http), expected.display().to_string()])
}

#[test]
fn responses_by_the_official_openai_client() -> Result<()> {
    let swarm = quickstart()?;
    let expected = repository().join("examples/quickstart/expected.json");
    python("responses_client.py", &[format!("{}/v1", swarm.http), expected.display().to_string()])
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
fn langchain() -> Result<()> {
    let swarm = quickstart()?;
    let expected = repository().join("examples/quickstart/expected.json");
    python("langchain_client.py", &[format!("{}/v1", swarm.http), expected.display().to_string()])
}

#[test]
fn the_official_triton_client() -> Result<()> {
    let swarm = quickstart()?;
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let expected = repository().join("examples/quickstart/expected.json");
    python("triton_client.py", &[address(&swarm.grpc), address(&swarm.http), expected.display().to_string()])
}

#[test]
fn tokens_and_prompts() -> Result<()> {
    python("tokens.py", &[quickstart()?.http.clone()])
}

/// Each line of a pipe is a message, and what was said before is sent along.
#[test]
fn slm_chat_in_a_pipe() -> Result<()> {
    let swarm = quickstart()?;
    let greedy = ["--temperature", "0", "--max-tokens", "24"];
    let chat = |lines: &str| {
        let chat = fed(slm(&[&["chat", "smollm2", "--server", &swarm.grpc], &greedy[..]].concat())?, lines)?;
        ensure!(chat.status.success(), "{}", String::from_utf8_lossy(&chat.stderr));
        Ok(String::from_utf8(chat.stdout)?)
    };
    let alone = chat("What is my name?\n")?;
    let cleared = chat("My name is Ada.\n/model nobody\n/model smollm2\n\n/clear\nWhat is my name?\n")?;
    ensure!(cleared.len() > alone.len() && cleared.ends_with(&alone), "{cleared:?} does not end with {alone:?}");
    let remembered = chat("My name is Ada.\nWhat is my name?\n")?;
    ensure!(!remembered.ends_with(&alone), "{remembered:?} is as if nothing had been said before");
    let refused = fed(slm(&["chat", "bankin", "--server", &swarm.grpc])?, "hello\nhello again\n")?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(1) && said.matches("did you mean `banking`?").count() == 1, "{said}");
    Ok(())
}

/// Line editing, Ctrl-C within an answer, and the end.
#[test]
fn slm_chat_in_a_terminal() -> Result<()> {
    let swarm = quickstart()?;
    let expected = repository().join("examples/quickstart/expected.json");
    let binary = slm_binary()?.display().to_string();
    python("chat_terminal.py", &[binary, swarm.grpc.clone(), expected.display().to_string()])
}

/// The output of a command with that standard input.
fn fed(mut command: Command, input: &str) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// The worker computes the prompt for the first answer, and for the others what the last page of its keys and values has.
#[tokio::test]
async fn several_answers_cost_one_prompt() -> Result<()> {
    const PAGE: u64 = 64;
    let folder = Folder::new()?;
    folder.write("base", &base("smollm2", &real::gguf()?, "precision: Int4, contextLength: 1024, maxSequences: 4"))?;
    let swarm = Swarm::start(folder.path())?;
    let worker = swarm.client()?.worker_of("smollm2").await?;
    let idle = |state: &WorkerState| state.sequences_running == 0 && state.requests_waiting == 0;
    let before = worker_state_until(&worker, idle).await?.prompt_tokens_total;
    let text = std::fs::read_to_string(repository().join("LICENSE"))?;
    let prompt: String = text.split_whitespace().take(400).collect::<Vec<_>>().join(" ");
    let body = json!({ "model": "smollm2", "prompt": prompt, "max_tokens": 4, "n": 4, "temperature": 1 });
    let answer = reqwest::Client::new().post(format!("{}/v1/completions", swarm.http)).json(&body).send().await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    let tokens = answer["usage"]["prompt_tokens"].as_u64().context("prompt tokens")?;
    let done = |state: &WorkerState| idle(state) && state.prompt_tokens_total >= before + tokens;
    let computed = worker_state_until(&worker, done).await?.prompt_tokens_total - before;
    println!("{tokens} prompt tokens, 4 answers, {computed} computed");
    ensure!(answer["choices"].as_array().map(Vec::len) == Some(4), "{answer}");
    ensure!(tokens > 4 * PAGE && (tokens..=tokens + 3 * PAGE).contains(&computed), "{tokens} {computed}");
    swarm.stop()?;
    Ok(())
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

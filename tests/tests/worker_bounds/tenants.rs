//! Tenants: what one of them asks neither tells the others anything nor takes their places.

use anyhow::{Context, Result};
use slm_proto::v1::{self, generate_response::Event};
use slm_tests::tiny::{Worker, greedy, ids};
use tonic::Code;

use super::{SMALL, connect, large, start, unread};

fn of(tenant: &str, request: v1::GenerateRequest) -> v1::GenerateRequest {
    v1::GenerateRequest { tenant: tenant.into(), ..request }
}

/// Prompt tokens that were in the cache.
async fn cached(worker: &mut Worker, tenant: &str, prompt: &[u32]) -> Result<u32> {
    let answer = worker.generation.complete(of(tenant, greedy("tiny", prompt, 1))).await?.into_inner();
    Ok(answer.usage.context("no usage")?.cached_tokens)
}

#[tokio::test]
async fn cached_tokens_tell_nothing_of_other_tenants() -> Result<()> {
    let mut worker = start(|_| ()).await?;
    let prompt: Vec<u32> = (1..=100).collect();
    for tenant in ["payroll", "support", ""] {
        assert_eq!(cached(&mut worker, tenant, &prompt).await?, 0, "{tenant}");
        assert_eq!(cached(&mut worker, tenant, &prompt).await?, 96, "{tenant}");
    }
    let long = of(&"x".repeat(300), greedy("tiny", &prompt, 1));
    let refused = worker.generation.complete(long).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "tenant has 300 bytes; it must be at most 256")
    );
    worker.stop().await
}

#[tokio::test]
async fn a_flood_leaves_other_tenants_their_places() -> Result<()> {
    let mut worker = start(|config| {
        (config.model.sequences_max, config.model.queue_max, config.model.unread_max) = (1, 7, Some(0));
    })
    .await?;
    // What is not read keeps its place.
    let mut client = connect(&worker, SMALL, 1 << 20).await?;
    let mut flood = Vec::new();
    for _ in 0..8 {
        flood.push(client.generate(of("flood", large())).await?.into_inner());
    }
    let refused = client.generate(of("flood", large())).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let mut quiet = worker.generation.generate(of("quiet", greedy("tiny", &[5], 20))).await?.into_inner();
    assert_eq!(ids(&mut quiet).await?.len(), 20);
    let mut displaced = Vec::new();
    for mut stream in flood {
        displaced.extend(ids(&mut stream).await.err().map(|status| status.code()));
    }
    assert_eq!(displaced, [Code::ResourceExhausted], "one place was needed");
    worker.stop().await
}

#[tokio::test]
async fn a_full_worker_refuses_before_it_looks_at_a_prompt() -> Result<()> {
    let mut worker = start(|config| {
        (config.model.sequences_max, config.model.queue_max, config.model.unread_max) = (1, 1, Some(0));
    })
    .await?;
    let mut client = connect(&worker, SMALL, 1 << 20).await?;
    let open = |state: &v1::WorkerState| state.sequences_running + state.requests_waiting + state.answers_unread;
    let streams = unread(&mut client, 2).await?;
    worker.state(|state| open(state) == 2).await?;
    // Each of them is refused for itself where there is a place.
    let input = |input| v1::GenerateRequest { input: Some(input), ..greedy("tiny", &[], 1) };
    let messages = |count| {
        let messages = vec![v1::Message::default(); count];
        input(v1::generate_request::Input::Messages(v1::Messages { messages }))
    };
    let requests = [input(v1::generate_request::Input::Prompt("x".repeat(3 << 20))), messages(100_000)];
    for request in &requests {
        let refused = worker.generation.generate(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
    drop(streams);
    worker.state(|state| open(state) == 0).await?;
    for (request, says) in requests.into_iter().zip(["no tokenizer", "messages has 100000 entries; at most 2048 fit"]) {
        let refused = worker.generation.generate(request).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(says), "{refused}");
    }
    let mut stream = worker.generation.generate(greedy("tiny", &[5], 1)).await?.into_inner();
    assert!(matches!(stream.message().await?.context("no Started")?.event, Some(Event::Started(_))));
    worker.stop().await
}

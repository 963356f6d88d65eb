//! Answers that are not read.

use std::time::Duration;

use anyhow::{Context, Result};
use slm_proto::v1;
use slm_tests::tiny::ids;
use tonic::Code;

use super::{SMALL, TOKENS, connect, large, start, unread};

fn idle(state: &v1::WorkerState) -> bool {
    state.sequences_running + state.requests_waiting + state.answers_unread == 0
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_ended_and_its_reader_is_told() -> Result<()> {
    let mut worker = start(|config| config.read_timeout = Duration::from_secs(1)).await?;
    let mut client = connect(&worker, SMALL, 1 << 20).await?;
    let streams = unread(&mut client, 4).await?;
    worker.state(|state| !idle(state)).await?;
    // Nobody reads, and yet everything is free again.
    worker.state(idle).await?;
    for mut stream in streams {
        let error = ids(&mut stream).await.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (Code::Aborted, "nothing of the answer was read for 1s; it was ended")
        );
    }
    worker.stop().await
}

/// Each stream has its share of the connection's window: those that are not read leave the others theirs.
#[tokio::test]
async fn readers_that_stop_do_not_stall_others_whose_windows_are_their_own() -> Result<()> {
    let mut worker = start(|config| config.model.unread_max = Some(30)).await?;
    let mut client = connect(&worker, SMALL, 64 << 10).await?;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.extend(unread(&mut client, 3).await?);
        worker.state(|state| state.answers_unread as usize == streams.len()).await?;
    }
    assert_eq!(streams.len(), 24);
    let mut read = client.generate(large()).await?.into_inner();
    assert_eq!(ids(&mut read).await?.len(), TOKENS as usize);
    // Nothing of the others was lost.
    worker.state(|state| state.answers_unread == 24).await?;
    for mut stream in streams {
        assert_eq!(ids(&mut stream).await?.len(), TOKENS as usize);
    }
    worker.stop().await
}

/// Why routers give each stream a small part of the connection's window: where a few streams can take all of it, they take
/// it from one that is read, too. Here that one ends as if it were not, though its reader waits for it.
#[tokio::test]
async fn readers_that_stop_stall_others_where_they_can_take_the_whole_window() -> Result<()> {
    let mut worker = start(|config| config.read_timeout = Duration::from_secs(1)).await?;
    let mut client = connect(&worker, 32 << 10, 64 << 10).await?;
    let streams = unread(&mut client, 4).await?;
    worker.state(|state| !idle(state)).await?;
    worker.state(idle).await?;
    let mut read = client.generate(large()).await?.into_inner();
    let reading = tokio::spawn(async move { ids(&mut read).await });
    worker.state(|state| !idle(state)).await?;
    worker.state(idle).await?;
    assert!(!reading.is_finished(), "it has not even heard of its end");
    // The window is there again when those that are not read go.
    drop(streams);
    assert_eq!(reading.await?.unwrap_err().code(), Code::Aborted);
    worker.stop().await
}

#[tokio::test]
async fn answers_that_are_not_read_are_bounded_and_their_tenant_pays() -> Result<()> {
    let mut worker = start(|config| {
        (config.model.sequences_max, config.model.queue_max, config.model.unread_max) = (2, 0, Some(2));
    })
    .await?;
    let mut client = connect(&worker, SMALL, 1 << 20).await?;
    let of = |tenant: &str| v1::GenerateRequest { tenant: tenant.into(), ..large() };
    let mut streams = Vec::new();
    for count in 1..=4 {
        streams.push(client.generate(of("slow")).await?.into_inner());
        worker.state(|state| state.answers_unread == count).await?;
    }
    let refused = client.generate(of("slow")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("4 answers are complete and not read"), "{}", refused.message());
    let mut quick = worker.generation.generate(of("quick")).await?.into_inner();
    assert_eq!(ids(&mut quick).await?.len(), TOKENS as usize);
    let mut outcomes = Vec::new();
    for mut stream in streams {
        outcomes.push(ids(&mut stream).await.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    assert_eq!(outcomes, [Code::ResourceExhausted, Code::Ok, Code::Ok, Code::Ok], "the oldest one made room");
    worker.stop().await
}

#[tokio::test]
async fn draining_waits_for_what_is_generated_and_not_read() -> Result<()> {
    let mut worker = start(|_| ()).await?;
    let mut client = connect(&worker, SMALL, 1 << 20).await?;
    let mut stream = client.generate(large()).await?.into_inner();
    worker.state(|state| state.answers_unread == 1).await?;
    let mut states = worker.control.watch_state(v1::WatchStateRequest {}).await?.into_inner();
    worker.shutdown.cancel();
    while !states.message().await?.context("no state of draining")?.draining {}
    // Longer than it took to end when all that is left is unread.
    let ended = tokio::time::timeout(Duration::from_secs(1), &mut worker.done).await;
    assert!(ended.is_err(), "it ended before its answer was read");
    assert_eq!(ids(&mut stream).await?.len(), TOKENS as usize);
    // The state stream ends, and with it everything.
    while states.message().await?.is_some() {}
    tokio::time::timeout(Duration::from_secs(5), &mut worker.done).await.context("it does not end")???;
    Ok(())
}

#[tokio::test]
async fn draining_has_an_end() -> Result<()> {
    let mut worker = start(|config| config.drain_timeout = Duration::from_millis(300)).await?;
    let mut client = connect(&worker, SMALL, 1 << 20).await?;
    let _stream = client.generate(large()).await?.into_inner();
    worker.state(|state| state.answers_unread == 1).await?;
    let _states = worker.control.watch_state(v1::WatchStateRequest {}).await?;
    worker.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), &mut worker.done).await.context("it does not end")???;
    Ok(())
}

//! Several processes, one cache.

use std::{fs, path::Path};

use crate::{
    child::{Ended, Fetcher},
    common::{bytes, entries, fetch, names, store, with_digest},
    server::FileServer,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_download_once() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(1 << 20, 1));
    let server = FileServer::start(content.clone()).await;
    server.script().hold_after = Some(300_000);
    let source = with_digest(&server.uri("x.gguf"), &content);
    let mut first = Fetcher::start(dir.path(), &source);
    first.wait_for("Downloading 300000");
    let mut second = Fetcher::start(dir.path(), &source);
    // It waits, and shows how far the other one is.
    assert!(second.wait_for("Waiting ").parse::<u64>().unwrap() > 0);
    server.release();
    assert_eq!(first.ended(), second.ended());
    assert_eq!(server.seen("host").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_takes_over_from_one_that_is_killed() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(1 << 20, 1));
    let server = FileServer::start(content.clone()).await;
    server.script().hold_after = Some(300_000);
    let source = with_digest(&server.uri("x.gguf"), &content);
    let mut first = Fetcher::start(dir.path(), &source);
    first.wait_for("Downloading 300000");
    let mut second = Fetcher::start(dir.path(), &source);
    second.wait_for("Waiting ");
    // The first one's connection stays held; the next one's is not.
    server.script().hold_after = None;
    first.kill();
    let Ended::Fetched(path) = second.ended() else { panic!() };
    assert_eq!(fs::read(path).unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_uses_is_not_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let contents: Vec<Vec<u8>> = (0..3).map(|seed| bytes(400_000, seed)).collect();
    let mut servers = Vec::new();
    for content in &contents {
        servers.push(FileServer::start(content.clone()).await);
    }
    let source = |which: usize| with_digest(&servers[which].uri("x.gguf"), &contents[which]);
    let mut holder = Fetcher::start(dir.path(), &source(0));
    let Ended::Fetched(held) = holder.ended() else { panic!() };
    let mut config = crate::common::config(dir.path());
    config.bytes_max = Some(1_000_000);
    let bounded = slm_artifacts::Store::open(config).unwrap();
    let second = fetch(&bounded, &source(1)).await.unwrap();
    let error = fetch(&bounded, &source(2)).await.unwrap_err();
    assert_eq!(error.reason(), "CacheFull");
    assert!(error.retryable() && error.to_string().contains("400000 more bytes do not fit"), "{error}");
    assert!(Path::new(&held).exists() && second.path().exists());
    // The oldest is the one that is used; so the other one goes.
    drop(second);
    let third = fetch(&bounded, &source(2)).await.unwrap();
    assert!(Path::new(&held).exists() && third.path().exists());
    assert_eq!(entries(dir.path()).len(), 2);
    drop((holder, third));
    fetch(&bounded, &source(1)).await.unwrap();
    assert!(!Path::new(&held).exists());
}

#[tokio::test]
async fn what_is_damaged_or_left_over_is_made_good() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(1000, 1));
    let server = FileServer::start(content.clone()).await;
    let source = with_digest(&server.uri("x.gguf"), &content);
    let artifact = fetch(&store(dir.path()), &source).await.unwrap();
    fs::write(artifact.path(), "short").unwrap();
    let again = fetch(&store(dir.path()), &source).await.unwrap();
    assert_eq!(fs::read(again.path()).unwrap(), content);
    drop((artifact, again));
    // As a crash may leave it.
    for left in ["partial/k/staging/content", "trash/t", "partial/other"] {
        fs::create_dir_all(dir.path().join(left)).unwrap();
    }
    for (file, bytes) in
        [("partial/k/staging/content/x", "x"), ("partial/k.lock", ""), ("trash/t/x", "x"), ("refs/x.json", "{")]
    {
        fs::write(dir.path().join(file), bytes).unwrap();
    }
    let store = store(dir.path());
    for folder in ["partial", "trash"] {
        assert_eq!(names(&dir.path().join(folder)), [""; 0], "{folder}");
    }
    assert_eq!(names(&dir.path().join("refs")).len(), 1, "that of the entry that is there");
    fetch(&store, &source).await.unwrap();
    assert_eq!(server.seen("host").len(), 2);
}

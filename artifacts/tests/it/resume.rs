//! Downloads that continue: after a broken connection, in a later process, and not when they must not.

use std::{fs, path::Path, time::Duration};

use slm_artifacts::{FetchError, Progress, Source, Store, StoreConfig};

use crate::{
    child::{Ended, Fetcher},
    common::{bytes, config, fetch, names, sha256, store, until, with_digest},
    server::FileServer,
};

const SIZE: usize = 1 << 20;

/// Bytes that have arrived of what is fetched.
fn arrived(cache: &Path) -> u64 {
    let partial = cache.join("partial");
    let folders = names(&partial).into_iter().filter(|name| !name.ends_with(".lock"));
    let file = |name| fs::metadata(partial.join(name).join("file")).map_or(0, |found| found.len());
    folders.map(file).sum()
}

fn ranges(server: &FileServer) -> Vec<Option<String>> {
    server.seen("range")
}

#[tokio::test]
async fn a_broken_connection_is_continued() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(SIZE, 1));
    let server = FileServer::start(content.clone()).await;
    // More breaks than attempts: each brings something, so each counts as the first.
    server.script().cuts.extend([100_000; 8]);
    let artifact = fetch(&store(dir.path()), &with_digest(&server.uri("x"), &content)).await.unwrap();
    assert_eq!(artifact.digest(), Some(sha256(&content).as_str()));
    assert_eq!(fs::read(artifact.path().join("x")).unwrap(), content);
    let ranges = ranges(&server);
    assert_eq!(ranges.len(), 9);
    assert!(ranges[0].is_none() && ranges[1..].iter().all(Option::is_some), "{ranges:?}");
    assert!(server.seen("if-range")[1..].iter().all(|tag| tag.as_deref() == Some("\"one\"")));
}

#[tokio::test]
async fn a_server_without_ranges_starts_over() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(SIZE, 1));
    let server = FileServer::start(content.clone()).await;
    server.script().ranges = false;
    server.script().cuts.extend([500_000, 500_000]);
    let artifact = fetch(&store(dir.path()), &with_digest(&server.uri("x"), &content)).await.unwrap();
    assert_eq!(fs::read(artifact.path().join("x")).unwrap(), content);
}

#[tokio::test]
async fn content_that_changed_starts_over() {
    let (dir, one, two) = (tempfile::tempdir().unwrap(), bytes(SIZE, 1), bytes(SIZE, 2));
    let server = FileServer::start(one.clone()).await;
    let store = store(dir.path());
    // Without a digest, only the tag tells.
    server.script().cuts.extend([500_000; 100]);
    server.script().ranges = false;
    let error = fetch(&store, &Source::new(server.uri("x"))).await.unwrap_err();
    assert!(matches!(error, FetchError::Truncated { expected, .. } if expected == SIZE as u64), "{error}");
    assert!(error.retryable());
    assert!(arrived(dir.path()) > 0, "kept for the next fetch");
    {
        let mut script = server.script();
        (script.content, script.etag, script.ranges) = (two.clone().into(), Some("\"two\"".to_owned()), true);
        script.cuts.clear();
    }
    let artifact = fetch(&store, &Source::new(server.uri("x"))).await.unwrap();
    assert_eq!(artifact.digest(), Some(sha256(&two).as_str()));
    assert!(ranges(&server).last().unwrap().is_some());
}

#[tokio::test]
async fn nothing_is_continued_that_cannot_be_told_apart() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(SIZE, 1));
    let server = FileServer::start(content.clone()).await;
    server.script().etag = None;
    server.script().cuts.extend([500_000]);
    let store = store(dir.path());
    fetch(&store, &Source::new(server.uri("x"))).await.unwrap();
    assert_eq!(ranges(&server), [None, None]);
    // A digest will tell.
    server.script().cuts.extend([500_000]);
    fetch(&store, &with_digest(&server.uri("y.tar"), &content)).await.unwrap_err();
    assert!(ranges(&server)[3].is_some());
}

#[tokio::test]
async fn a_range_that_lies_is_found_out() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(SIZE, 1));
    let server = FileServer::start(bytes(SIZE, 2)).await;
    server.script().cuts.extend([500_000]);
    let store = store(dir.path());
    // The first half comes from something else under the same tag; then the server has the right file.
    server.script().then = Some(content.clone().into());
    let artifact = fetch(&store, &with_digest(&server.uri("x"), &content)).await.unwrap();
    assert_eq!(fs::read(artifact.path().join("x")).unwrap(), content);
    let starts = ranges(&server);
    assert!(starts.len() == 3 && starts[1].is_some() && starts[2].is_none(), "{starts:?}");
}

#[tokio::test]
async fn a_file_without_a_length_ends_where_it_ends() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(SIZE, 1));
    let server = FileServer::start(content.clone()).await;
    server.script().chunked = true;
    server.script().cuts.extend([300_000]);
    let artifact = fetch(&store(dir.path()), &Source::new(server.uri("x"))).await.unwrap();
    assert_eq!(artifact.digest(), Some(sha256(&content).as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_continued_by_the_next() {
    for digest in [true, false] {
        let (dir, content) = (tempfile::tempdir().unwrap(), bytes(SIZE, 1));
        let server = FileServer::start(content.clone()).await;
        server.script().hold_after = Some(600_000);
        let mut source = with_digest(&server.uri("x.gguf"), &content);
        source.digest = source.digest.filter(|_| digest);
        let fetcher = Fetcher::start(dir.path(), &source);
        until("600,000 bytes are on disk", || arrived(dir.path()) == 600_000).await;
        fetcher.kill();
        server.release();
        let Ended::Fetched(path) = Fetcher::start(dir.path(), &source).ended() else { panic!() };
        assert_eq!(fs::read(path).unwrap(), content);
        assert_eq!(ranges(&server), [None, Some("bytes=600000-".to_owned())]);
        assert_eq!(names(&dir.path().join("partial")), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_given_up_is_continued() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(SIZE, 1));
    let server = FileServer::start(content.clone()).await;
    server.script().hold_after = Some(600_000);
    let (store, source) = (store(dir.path()), with_digest(&server.uri("x.gguf"), &content));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let fetching = tokio::spawn({
        let (store, source) = (store.clone(), source.clone());
        async move { store.fetch(&source, &mut |progress: Progress| tell.send(progress.done).unwrap()).await }
    });
    while told.recv().await.unwrap() < 600_000 {}
    fetching.abort();
    assert!(fetching.await.unwrap_err().is_cancelled());
    server.release();
    // The lock is free as soon as what had arrived is written.
    let artifact = fetch(&store, &source).await.unwrap();
    assert_eq!(fs::read(artifact.path()).unwrap(), content);
    assert_eq!(ranges(&server)[1].as_deref(), Some("bytes=600000-"));
}

#[tokio::test]
async fn a_server_that_trickles_is_given_up() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(SIZE, 1));
    let server = FileServer::start(content.clone()).await;
    // Never silent for long, and at this pace done in an hour.
    server.script().trickle = Some((10, Duration::from_millis(20)));
    let config = StoreConfig { idle: Duration::from_millis(50), rate_min: 100_000, ..config(dir.path()) };
    let store = Store::open(config).unwrap();
    let error = fetch(&store, &with_digest(&server.uri("x"), &content)).await.unwrap_err();
    assert!(error.to_string().contains("the server sends less than 100000 bytes a second"), "{error}");
    assert!(error.retryable() && ranges(&server).len() < 30, "{} attempts", ranges(&server).len());
    // What it brought is continued when it is better again.
    assert!(arrived(dir.path()) > 0);
    server.script().trickle = None;
    let artifact = fetch(&store, &with_digest(&server.uri("x"), &content)).await.unwrap();
    assert_eq!(fs::read(artifact.path().join("x")).unwrap(), content);
}

#[tokio::test]
async fn a_server_that_does_not_begin_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = FileServer::start(bytes(10, 1)).await;
    server.script().silent = true;
    let config = StoreConfig { answer_max: Duration::from_millis(50), ..config(dir.path()) };
    let store = Store::open(config).unwrap();
    for uri in [server.uri("x"), format!("oci://{}/team/model:v1", server.host)] {
        let error = fetch(&store, &Source::new(&uri)).await.unwrap_err();
        assert!(error.to_string().contains("no answer within 50ms"), "{error}");
    }
}

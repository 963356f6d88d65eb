//! Bounds: of the cache, and of the disk.

use std::{fs, io::Write as _, process::Command};

use slm_artifacts::{Source, Store};

use crate::{
    child::{Ended, Fetcher, command, order},
    common::{bytes, config, entries, fetch, gzip, names, tar, with_digest},
    server::FileServer,
};

fn bounded(dir: &std::path::Path, bytes_max: u64) -> Store {
    let mut config = config(dir);
    config.bytes_max = Some(bytes_max);
    Store::open(config).unwrap()
}

#[tokio::test]
async fn what_was_used_longest_ago_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = bounded(dir.path(), 1_000_000);
    let mut servers = Vec::new();
    for seed in 0..4 {
        servers.push((FileServer::start(bytes(300_000, seed)).await, bytes(300_000, seed)));
    }
    let source = |which: usize| with_digest(&servers[which].0.uri("x"), &servers[which].1);
    let key = |which: usize| source(which).digest.unwrap().replace(':', "-");
    for which in [0, 1, 2, 0] {
        fetch(&store, &source(which)).await.unwrap();
    }
    fetch(&store, &source(3)).await.unwrap();
    let mut left = vec![key(0), key(2), key(3)];
    left.sort();
    assert_eq!(entries(dir.path()), left);
}

#[tokio::test]
async fn what_never_fits_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let store = bounded(dir.path(), 100_000);
    let server = FileServer::start(bytes(100_001, 1)).await;
    let error = fetch(&store, &Source::new(server.uri("x"))).await.unwrap_err();
    assert_eq!(error.reason(), "TooLarge");
    assert!(error.to_string().contains("100001 bytes are more than the 100000 allowed"), "{error}");
    // Nor is what says nothing of its size, or unpacks to more.
    server.script().chunked = true;
    let error = fetch(&store, &Source::new(server.uri("y"))).await.unwrap_err();
    assert_eq!(error.reason(), "TooLarge");
    let server = FileServer::start(gzip(&tar(&[("zeros", &vec![0; 200_000])]))).await;
    let error = fetch(&store, &Source::new(server.uri("x.tgz"))).await.unwrap_err();
    assert_eq!(error.reason(), "TooLarge");
    assert_eq!(entries(dir.path()), [""; 0]);
}

/// Words to put before a command so that `DIR` is a disk of 4 MiB for it alone; `None` where that is not allowed.
fn small_disk(dir: &str) -> Option<Vec<String>> {
    let script = format!("mount -t tmpfs -o size=4m none {dir} && mkdir {dir}/cache && exec \"$@\"");
    // Root has a mount namespace for the asking; others get one with a user namespace where the system lets them.
    let found = ["-m", "-rm"].into_iter().find(|flag| {
        let probe = Command::new("unshare").args([flag, "sh", "-c", &script, "sh", "true"]).output();
        probe.is_ok_and(|output| output.status.success())
    })?;
    Some(["unshare", found, "sh", "-c", &script, "sh"].map(str::to_owned).to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_makes_room_or_says_how_much_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let Some(before) = small_disk(disk.to_str().unwrap()) else {
        // Not by a macro, whose output the test harness keeps to itself.
        let why = "SKIPPED a_full_disk: no mount namespace on this machine; run as root, or allow user namespaces
";
        std::io::stderr().write_all(why.as_bytes()).unwrap();
        return;
    };
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    let content = bytes(5 << 20, 1);
    let server = FileServer::start(content.clone()).await;
    let cache = disk.join("cache");
    let mut fetcher = Fetcher::run(command(&before, &order(&cache, &with_digest(&server.uri("x"), &content))));
    let Ended::Failed(reason, message) = fetcher.ended() else { panic!() };
    assert_eq!(reason, "DiskFull");
    assert!(message.contains("more bytes are needed in") && message.contains(cache.to_str().unwrap()), "{message}");
    let missing: u64 = message.split("disk is full: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((1 << 20..2 << 20).contains(&missing), "{message}");
    // What can be evicted is: 3 MiB that nobody needs any more make room for 3 others.
    let (old, new) = (bytes(3 << 20, 2), bytes(3 << 20, 3));
    let servers = (FileServer::start(old.clone()).await, FileServer::start(new.clone()).await);
    let mut both = order(&cache, &with_digest(&servers.1.uri("new"), &new));
    both["before"] = order(&cache, &with_digest(&servers.0.uri("old"), &old));
    let mut fetcher = Fetcher::run(command(&before, &both));
    assert!(matches!(fetcher.ended(), Ended::Fetched(_)));
    assert_eq!(servers.0.seen("host").len(), 1);
}

#[tokio::test]
async fn an_archive_that_fills_nothing_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = bounded(dir.path(), 1_000_000);
    let server = FileServer::start(&b"no archive"[..]).await;
    let error = fetch(&store, &Source::new(server.uri("x.tar.gz"))).await.unwrap_err();
    assert_eq!(error.reason(), "UnsafeArchive");
    assert!(error.to_string().contains("x.tar.gz: the archive is damaged"), "{error}");
    assert_eq!(names(&dir.path().join("partial")).len(), 0);
}

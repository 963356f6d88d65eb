//! Files and archives of a web server.

use std::{fs, path::Path};

use slm_artifacts::{Credentials, Phase, Source};

use crate::{
    common::{bytes, config, entries, fetch, gzip, names, phases, sha256, store, tar, with_digest},
    server::FileServer,
};

#[tokio::test]
async fn a_file_keeps_its_name_and_is_fetched_once() {
    let (dir, content) = (tempfile::tempdir().unwrap(), bytes(100_000, 1));
    let server = FileServer::start(content.clone()).await;
    let store = store(dir.path());
    let source = with_digest(&server.uri("x%20y.gguf"), &content);
    let (first, seen) = phases(&store, &source).await;
    let first = first.unwrap();
    assert_eq!(seen, [Phase::Downloading]);
    assert_eq!(first.path().file_name().unwrap(), "x y.gguf");
    assert_eq!(fs::read(first.path()).unwrap(), content);
    assert_eq!((first.digest(), first.bytes()), (source.digest.as_deref(), Some(100_000)));
    assert!(!first.is_stale());
    assert_eq!(server.seen("user-agent").len(), 1);
    // By digest nothing is asked.
    server.stop().await;
    let second = fetch(&store, &source).await.unwrap();
    assert_eq!(second.path(), first.path());
    assert_eq!(names(&dir.path().join("partial")), [""; 0]);
}

#[tokio::test]
async fn another_digest_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = FileServer::start(gzip(&tar(&[("../evil", b"x")]))).await;
    // Never looked into: the digest comes first.
    let source = with_digest(&server.uri("x.tar.gz?signature=secret"), b"something else");
    let error = fetch(&store(dir.path()), &source).await.unwrap_err();
    assert_eq!(error.reason(), "DigestMismatch");
    assert!(!error.retryable());
    let message = error.to_string();
    assert!(
        message.contains("x.tar.gz has digest sha256:") && message.contains(&sha256(b"something else")),
        "{message}"
    );
    assert!(!message.contains("secret"), "{message}");
    assert_eq!(entries(dir.path()), [""; 0]);
    assert_eq!(names(&dir.path().join("partial")), [""; 0]);
}

#[tokio::test]
async fn archives_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let plain = tar(&[("adapter/adapter_config.json", b"{}"), ("adapter/adapter_model.safetensors", b"weights")]);
    let store = store(dir.path());
    for (name, content) in [("a.tar", plain.clone()), ("a.tar.gz", gzip(&plain)), ("a.tgz", gzip(&plain))] {
        let server = FileServer::start(content.clone()).await;
        let artifact = fetch(&store, &with_digest(&server.uri(name), &content)).await.unwrap();
        assert_eq!(names(artifact.path()), ["adapter_config.json", "adapter_model.safetensors"], "{name}");
        assert_eq!(artifact.digest(), Some(sha256(&content).as_str()));
    }
    let server = FileServer::start(tar(&[("../x", b"x")])).await;
    let error = fetch(&store, &Source::new(server.uri("evil.tar"))).await.unwrap_err();
    assert_eq!(error.reason(), "UnsafeArchive");
    assert!(error.to_string().contains("evil.tar: ../x: leaves the folder"), "{error}");
    let one = tar(&[("models/x.gguf", b"GGUF")]);
    let server = FileServer::start(one).await;
    let artifact = fetch(&store, &Source::new(server.uri("x.tar"))).await.unwrap();
    assert_eq!(artifact.path().file_name().unwrap(), "x.gguf");
    assert_eq!(names(&dir.path().join("partial")), [""; 0]);
}

#[tokio::test]
async fn without_a_digest_the_server_is_asked_each_time() {
    let (dir, one, two) = (tempfile::tempdir().unwrap(), bytes(1000, 1), bytes(2000, 2));
    let server = FileServer::start(one.clone()).await;
    let (store, source) = (store(dir.path()), Source::new(server.uri("x.gguf")));
    let first = fetch(&store, &source).await.unwrap();
    assert_eq!(first.digest(), Some(sha256(&one).as_str()));
    let same = fetch(&store, &source).await.unwrap();
    assert_eq!(same.path(), first.path());
    assert_eq!(server.seen("if-none-match"), [None, Some("\"one\"".to_owned())]);
    {
        let mut script = server.script();
        (script.content, script.etag) = (two.clone().into(), Some("\"two\"".to_owned()));
    }
    let second = fetch(&store, &source).await.unwrap();
    assert_eq!(second.digest(), Some(sha256(&two).as_str()));
    assert_eq!(fs::read(first.path()).unwrap(), one, "the old one stays while it is used");
    // A server that is away, or not well, is stood in for by what it said last.
    server.script().refusals.extend((0..2).map(|_| (503, vec![])));
    let stale = fetch(&store, &source).await.unwrap();
    assert!(stale.is_stale() && stale.path() == second.path());
    server.stop().await;
    let stale = fetch(&store, &source).await.unwrap();
    assert!(stale.is_stale() && stale.path() == second.path());
    let other = Source::new(source.uri.replace("x.gguf", "y.gguf"));
    let error = fetch(&store, &other).await.unwrap_err();
    assert!(error.reason() == "Unreachable" && error.retryable(), "{error}");
    assert!(error.to_string().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_no_is_not_stood_in_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = FileServer::start("content").await;
    let (store, source) = (store(dir.path()), Source::new(server.uri("x.gguf")));
    fetch(&store, &source).await.unwrap();
    for (status, reason) in
        [(401, "Unauthorized"), (403, "Unauthorized"), (404, "NotFound"), (410, "NotFound"), (418, "Refused")]
    {
        server.script().refusals.push_back((status, vec![]));
        let before = server.seen("host").len();
        let error = fetch(&store, &source).await.unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(!error.retryable() && error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(server.seen("host").len(), before + 1, "{status} is not tried again");
    }
    assert_eq!(names(&dir.path().join("partial")), [""; 0]);
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = FileServer::start("content").await;
    let after = |seconds: &str| vec![("retry-after", seconds.to_owned())];
    server.script().refusals.extend([(503, vec![]), (429, after("1")), (500, vec![])]);
    let begun = std::time::Instant::now();
    fetch(&store(dir.path()), &with_digest(&server.uri("x"), b"content")).await.unwrap();
    assert!(begun.elapsed().as_secs_f64() >= 1.0);
    assert_eq!(server.seen("host").len(), 4);
    // Longer than anyone waits.
    server.script().refusals.push_back((429, after("3600")));
    let error = fetch(&store(dir.path()), &Source::new(server.uri("y"))).await.unwrap_err();
    assert_eq!(error.reason(), "Unreachable");
    assert_eq!(server.seen("host").len(), 5);
}

#[tokio::test]
async fn redirects_keep_secrets_and_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (FileServer::start("").await, FileServer::start("content").await);
    let store = store(dir.path());
    let away = |uri: String| (302, vec![("location", uri)]);
    from.script().refusals.push_back(away(to.uri("elsewhere")));
    let source =
        Source { credentials: Some(Credentials::Bearer("token".to_owned())), ..Source::new(from.uri("x.gguf")) };
    let artifact = fetch(&store, &source).await.unwrap();
    assert_eq!(artifact.path().file_name().unwrap(), "x.gguf");
    assert_eq!(from.seen("authorization"), [Some("Bearer token".to_owned())]);
    assert_eq!(to.seen("authorization"), [None]);
    from.script().refusals.push_back(away("http://192.0.2.1/x".to_owned()));
    let error = fetch(&store, &Source::new(from.uri("y"))).await.unwrap_err();
    assert_eq!(error.reason(), "Insecure");
    assert!(error.to_string().contains("redirects to 192.0.2.1 without TLS"), "{error}");
    from.script().refusals.extend((0..12).map(|_| away(from.uri("again"))));
    let error = fetch(&store, &Source::new(from.uri("z"))).await.unwrap_err();
    assert!(error.to_string().contains("more than 10 times"), "{error}");
    let error = fetch(&store, &Source::new("http://192.0.2.1/x")).await.unwrap_err();
    assert_eq!(error.reason(), "Insecure");
}

#[tokio::test]
async fn basic_and_docker_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let server = FileServer::start("content").await;
    let store = store(dir.path());
    let basic = Credentials::Basic { username: "alice".to_owned(), password: "secret".to_owned() };
    let config = format!(r#"{{"auths": {{"{}": {{"auth": "YWxpY2U6c2VjcmV0"}}}}}}"#, server.host);
    for credentials in [basic, Credentials::from_docker_config(&config).unwrap()] {
        let source = Source { credentials: Some(credentials), ..Source::new(server.uri("x")) };
        fetch(&store, &source).await.unwrap();
    }
    let expected = Some("Basic YWxpY2U6c2VjcmV0".to_owned());
    assert_eq!(server.seen("authorization"), [expected.clone(), expected]);
}

#[tokio::test]
async fn files_and_claims_are_used_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let claim = dir.path().join("claims/models/llama");
    fs::create_dir_all(&claim).unwrap();
    fs::write(claim.join("x.gguf"), "GGUF").unwrap();
    let mut config = config(&dir.path().join("cache"));
    config.pvc_root = dir.path().join("claims");
    let store = slm_artifacts::Store::open(config).unwrap();
    let file = claim.join("x.gguf").canonicalize().unwrap();
    for uri in [
        format!("file:{}", file.display()),
        format!("file://{}", file.display()),
        "pvc://models/llama/x.gguf".to_owned(),
    ] {
        let artifact = fetch(&store, &with_digest(&uri, b"left to the caller")).await.unwrap();
        assert_eq!(artifact.path(), file, "{uri}");
        assert_eq!((artifact.digest(), artifact.bytes()), (None, None));
    }
    let missing = Path::new("/nowhere/x.gguf");
    let error = fetch(&store, &Source::new(format!("file:{}", missing.display()))).await.unwrap_err();
    assert_eq!(error.to_string(), "file:/nowhere/x.gguf: /nowhere/x.gguf does not exist");
}

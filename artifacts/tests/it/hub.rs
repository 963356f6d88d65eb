//! Repositories of a Hub.

use std::fs;

use slm_artifacts::{Credentials, FetchError, Source, Store, StoreConfig};

use crate::{
    common::{bytes, config, entries, fetch, names, sha256},
    hub_server::HubServer,
};

fn store(hub: &HubServer, dir: &std::path::Path) -> Store {
    Store::open(StoreConfig { hub_endpoint: hub.endpoint.clone(), ..config(dir) }).unwrap()
}

/// A model as repositories have them: twice, and with much that is not needed.
fn model() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("README.md", b"# model".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", bytes(200_000, 1)),
        ("pytorch_model.bin", bytes(200_000, 2)),
        ("tokenizer.json", bytes(2_000, 3)),
    ]
}

#[tokio::test]
async fn a_model_has_the_files_it_needs_and_nothing_is_asked_twice() {
    let dir = tempfile::tempdir().unwrap();
    let hub = HubServer::start(&model()).await;
    let store = store(&hub, dir.path());
    let artifact = fetch(&store, &Source::new("hf://org/repo")).await.unwrap();
    assert_eq!(names(artifact.path()), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(fs::read(artifact.path().join("model.safetensors")).unwrap(), model()[2].1);
    // What `sha256sum` prints of the files.
    let listed: String = [1, 2, 4]
        .map(|place| format!("{}  {}\n", &sha256(&model()[place].1)["sha256:".len()..], model()[place].0))
        .concat();
    assert_eq!(artifact.digest(), Some(sha256(listed.as_bytes()).as_str()));
    let downloads = |hub: &HubServer| hub.contents().seen.iter().filter(|seen| seen.starts_with("resolve")).count();
    assert_eq!(downloads(&hub), 3);
    // The branch is asked about, and its commit is known.
    hub.contents().seen.clear();
    let again = fetch(&store, &Source::new("hf://org/repo")).await.unwrap();
    assert_eq!((again.path(), again.is_stale()), (artifact.path(), false));
    assert_eq!(hub.contents().seen, ["revision main"]);
    // By its digest, and by its commit, nothing is asked at all.
    let commit = hub.contents().branches["main"].clone();
    let digest = artifact.digest().map(str::to_owned);
    hub.stop().await;
    fetch(&store, &Source { digest, ..Source::new("hf://org/repo") }).await.unwrap();
    fetch(&store, &Source::new(format!("hf://org/repo@{commit}"))).await.unwrap();
    let stale = fetch(&store, &Source::new("hf://org/repo")).await.unwrap();
    assert!(stale.is_stale());
}

#[tokio::test]
async fn one_file_of_a_repository() {
    let dir = tempfile::tempdir().unwrap();
    let file = bytes(50_000, 1);
    let hub = HubServer::start(&[("q/a b.gguf", file.clone()), ("q/c.gguf", bytes(50_000, 2))]).await;
    let store = store(&hub, dir.path());
    let source = Source { digest: Some(sha256(&file)), ..Source::new("hf://org/repo/q/a b.gguf") };
    let artifact = fetch(&store, &source).await.unwrap();
    assert_eq!(artifact.path().file_name().unwrap(), "a b.gguf");
    assert_eq!(artifact.digest(), Some(sha256(&file).as_str()));
    // The same bytes under another name of the same version are the same entry.
    assert_eq!(entries(dir.path()).len(), 1);
    let error = fetch(&store, &Source::new("hf://org/repo/q")).await.unwrap_err();
    assert_eq!(error.reason(), "NotFound");
    assert!(error.to_string().contains("has 2 GGUF files: name one of them"), "{error}");
}

#[tokio::test]
async fn a_branch_that_moves_is_fetched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let hub = HubServer::start(&model()).await;
    let store = store(&hub, dir.path());
    let first = fetch(&store, &Source::new("hf://org/repo")).await.unwrap();
    let mut files = model();
    files[2].1 = bytes(200_000, 9);
    hub.publish("main", &files);
    hub.publish("refs/pr/1", &model());
    let second = fetch(&store, &Source::new("hf://org/repo")).await.unwrap();
    assert_ne!(first.digest(), second.digest());
    assert_eq!(fs::read(second.path().join("model.safetensors")).unwrap(), files[2].1);
    // Another branch with the same files is the same artifact.
    let third = fetch(&store, &Source::new("hf://org/repo@refs%2Fpr%2F1")).await.unwrap();
    assert_eq!(third.path(), first.path());
}

#[tokio::test]
async fn a_broken_download_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let hub = HubServer::start(&model()).await;
    hub.contents().cuts.extend([50_000, 50_000]);
    let artifact = fetch(&store(&hub, dir.path()), &Source::new("hf://org/repo")).await.unwrap();
    assert_eq!(fs::read(artifact.path().join("model.safetensors")).unwrap(), model()[2].1);
    let contents = hub.contents();
    let ranges = contents.storage_seen.iter().filter_map(|headers| headers.get("range")).collect::<Vec<_>>();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
}

#[tokio::test]
async fn tokens_go_to_the_hub_and_not_to_its_storage() {
    let dir = tempfile::tempdir().unwrap();
    let hub = HubServer::start(&model()).await;
    hub.contents().token = Some("hf_secret".to_owned());
    let refused = fetch(&store(&hub, dir.path()), &Source::new("hf://org/repo")).await.unwrap_err();
    assert_eq!(refused.reason(), "Unauthorized");
    assert!(refused.to_string().contains("no repository org/repo, or it is private"), "{refused}");
    let credentials = Some(Credentials::Bearer("hf_secret".to_owned()));
    let source = Source { credentials: credentials.clone(), ..Source::new("hf://org/repo") };
    fetch(&store(&hub, dir.path()), &source).await.unwrap();
    // The token of the store serves sources without one.
    let other = tempfile::tempdir().unwrap();
    let config =
        StoreConfig { hub_endpoint: hub.endpoint.clone(), hub_credentials: credentials, ..config(other.path()) };
    fetch(&Store::open(config).unwrap(), &Source::new("hf://org/repo")).await.unwrap();
    let contents = hub.contents();
    assert!(!contents.storage_seen.is_empty());
    assert!(contents.storage_seen.iter().all(|headers| !headers.contains_key("authorization")));
}

#[tokio::test]
async fn bytes_that_are_not_those_of_the_commit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hub = HubServer::start(&model()).await;
    hub.contents().wrong_blob = Some("1".repeat(40));
    let error = fetch(&store(&hub, dir.path()), &Source::new("hf://org/repo")).await.unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, FetchError::DigestMismatch { .. }), "{message}");
    assert!(message.contains("config.json has digest git:") && message.contains(&"1".repeat(40)), "{message}");
    assert_eq!(entries(dir.path()), [""; 0]);
    hub.contents().wrong_blob = None;
    let source = Source { digest: Some(sha256(b"other")), ..Source::new("hf://org/repo") };
    let error = fetch(&store(&hub, dir.path()), &source).await.unwrap_err();
    assert_eq!(error.reason(), "DigestMismatch");
    assert_eq!((entries(dir.path()), names(&dir.path().join("partial"))), (Vec::new(), Vec::<String>::new()));
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let hub = HubServer::start(&model()).await;
    hub.publish("pickles", &[("config.json", b"{}".to_vec()), ("pytorch_model.bin", bytes(2_000, 1))]);
    for (uri, refuses, reason, part) in [
        ("hf://org/other", None, "Unauthorized", "there is no repository org/other"),
        ("hf://org/repo@v9", None, "NotFound", "org/repo has no revision v9"),
        ("hf://org/repo/missing", None, "NotFound", "org/repo no file or folder missing"),
        ("hf://org/repo@pickles", None, "NotFound", "as a pickle only (pytorch_model.bin)"),
        ("hf://org/repo", Some(("GatedRepo", 403)), "Unauthorized", "accept its terms"),
        ("hf://org/repo", Some(("", 500)), "Unreachable", "the server answers 500"),
        ("hf://org", None, "BadReference", "write hf://ORG/REPO"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        hub.contents().refuses = refuses;
        let error = fetch(&store(&hub, dir.path()), &Source::new(uri)).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{uri}: {error}");
        assert!(error.to_string().contains(part), "{uri}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    for (endpoint, reason) in [("http://hub.example.com", "Insecure"), ("hub", "BadReference")] {
        let config = StoreConfig { hub_endpoint: endpoint.to_owned(), ..config(dir.path()) };
        let error = fetch(&Store::open(config).unwrap(), &Source::new("hf://org/repo")).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{endpoint}: {error}");
    }
}

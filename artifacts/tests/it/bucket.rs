//! Files of buckets, from a real S3 server.

use std::{fs, path::Path};

use slm_artifacts::{Credentials, FetchError, Source, Store, StoreConfig};

use crate::{
    common::{bytes, config, entries, fetch, names, sha256},
    s3_server::{BUCKET, KEYS, S3Server},
};

fn store(server: &S3Server, dir: &Path) -> Store {
    Store::open(StoreConfig { s3_endpoint: Some(server.endpoint.clone()), ..config(dir) }).unwrap()
}

fn source(path: &str) -> Source {
    let (username, password) = (KEYS.0.to_owned(), KEYS.1.to_owned());
    let credentials = Some(Credentials::Basic { username, password });
    Source { credentials, ..Source::new(format!("s3://{BUCKET}/{path}")) }
}

/// An adapter as it lies in a bucket, beside what is not needed.
async fn put_adapter(server: &S3Server, seed: u64) {
    server.put("adapters/banking/adapter_config.json", b"{}".to_vec()).await;
    server.put("adapters/banking/adapter_model.safetensors", bytes(200_000, seed)).await;
    server.put("adapters/banking/README.md", b"# banking".to_vec()).await;
    server.put("adapters/banking-2/adapter_config.json", b"{}".to_vec()).await;
}

#[tokio::test]
async fn a_folder_of_a_bucket() {
    let (server, dir) = (S3Server::start().await, tempfile::tempdir().unwrap());
    put_adapter(&server, 1).await;
    let store = store(&server, dir.path());
    let artifact = fetch(&store, &source("adapters/banking")).await.unwrap();
    assert_eq!(names(artifact.path()), ["adapter_config.json", "adapter_model.safetensors"]);
    assert_eq!(fs::read(artifact.path().join("adapter_model.safetensors")).unwrap(), bytes(200_000, 1));
    // Unchanged, it is the same; changed, it is another, and other files do not count.
    server.put("adapters/travel/adapter_config.json", b"{}".to_vec()).await;
    let again = fetch(&store, &source("adapters/banking")).await.unwrap();
    assert_eq!((again.path(), again.is_stale()), (artifact.path(), false));
    put_adapter(&server, 2).await;
    let changed = fetch(&store, &source("adapters/banking")).await.unwrap();
    assert_ne!(changed.digest(), artifact.digest());
    assert_eq!(fs::read(changed.path().join("adapter_model.safetensors")).unwrap(), bytes(200_000, 2));
    assert_eq!(entries(dir.path()).len(), 2);
}

#[tokio::test]
async fn one_file_of_a_bucket_by_its_digest() {
    let (mut server, dir) = (S3Server::start().await, tempfile::tempdir().unwrap());
    let file = bytes(3 << 20, 1);
    server.put("smollm2/model q4.gguf", file.clone()).await;
    let store = store(&server, dir.path());
    let digest = Some(sha256(&file));
    let wrong = Source { digest: Some(sha256(b"another")), ..source("smollm2/model q4.gguf") };
    let error = fetch(&store, &wrong).await.unwrap_err();
    assert!(matches!(error, FetchError::DigestMismatch { .. }), "{error}");
    let named = Source { digest, ..source("smollm2/model q4.gguf") };
    let artifact = fetch(&store, &named).await.unwrap();
    assert_eq!(artifact.path().file_name().unwrap(), "model q4.gguf");
    assert_eq!(fs::read(artifact.path()).unwrap(), file);
    // By its digest nothing is asked; without one, what was there last is used, and said to be stale.
    server.stop().await;
    fetch(&store, &named).await.unwrap();
    let stale = fetch(&store, &source("smollm2/model q4.gguf")).await.unwrap();
    assert!(stale.is_stale());
}

#[tokio::test]
async fn what_cannot_be_had_is_said() {
    let (server, dir) = (S3Server::start().await, tempfile::tempdir().unwrap());
    server.put("pickles/pytorch_model.bin", bytes(1_000, 1)).await;
    server.put("quantised/a.gguf", bytes(1_000, 1)).await;
    server.put("quantised/b.gguf", bytes(1_000, 2)).await;
    let store = store(&server, dir.path());
    let (username, password) = (KEYS.0.to_owned(), "wrong".to_owned());
    let denied = Source { credentials: Some(Credentials::Basic { username, password }), ..source("quantised/a.gguf") };
    let token = Source { credentials: Some(Credentials::Bearer("token".to_owned())), ..source("quantised/a.gguf") };
    for (asked, reason, part) in [
        (source("nothing"), "NotFound", "models has no file or folder nothing"),
        (source("pickles"), "NotFound", "as a pickle only"),
        (source("quantised"), "NotFound", "has 2 GGUF files: name one of them"),
        (denied, "Unauthorized", "access is denied"),
        (token, "Unauthorized", "the Secret has to have username: the access key's id"),
    ] {
        let error = fetch(&store, &asked).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        let text = error.to_string();
        assert!(text.contains(part) && !text.contains(KEYS.1), "{text}");
    }
    let one = fetch(&store, &source("quantised/a*.gguf")).await.unwrap();
    assert_eq!(one.path().file_name().unwrap(), "a.gguf");
}

#[tokio::test]
async fn an_endpoint_without_tls_has_to_be_allowed() {
    let dir = tempfile::tempdir().unwrap();
    for (endpoint, reason) in [("http://s3.example.com:9000", "Insecure"), ("nonsense", "BadReference")] {
        let config = StoreConfig { s3_endpoint: Some(endpoint.to_owned()), ..config(dir.path()) };
        let error = fetch(&Store::open(config).unwrap(), &source("x")).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
}

//! Loads of adapters that do not go as they should, and what stays in the cache.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use slm_artifacts::Source;
use slm_convert::{bundle::PrecisionChoice, graph::Precision};
use slm_proto::v1;
use slm_tests::{
    archives::Archives,
    tiny::{self, Worker, adapter},
};
use slm_worker::WorkerEvent;
use tokio_util::sync::CancellationToken;
use tonic::Code;

fn from(archives: &Archives, index: usize) -> v1::LoadAdapterRequest {
    let (source, digest) = archives.source(index);
    v1::LoadAdapterRequest { name: "expert".into(), source, digest, ..Default::default() }
}

#[tokio::test]
async fn a_load_has_an_end_and_the_name_is_free_after_it() -> Result<()> {
    let archives = Archives::serve(&[adapter("r4-all")]).await?;
    archives.set_answering(false);
    let mut worker = Worker::start(|config| config.load_timeout = Duration::from_millis(300)).await?;
    let late = worker.control.load_adapter(from(&archives, 0)).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(late.message().starts_with("the adapter was not loaded within 300ms"), "{}", late.message());
    archives.set_answering(true);
    worker.control.load_adapter(from(&archives, 0)).await?;
    worker.state(|state| state.adapters.len() == 1).await?;
    worker.stop().await
}

#[tokio::test]
async fn an_older_load_never_replaces_a_newer_one() -> Result<()> {
    let archives = Archives::serve(&[adapter("r4-all")]).await?;
    archives.set_answering(false);
    let mut worker = Worker::start(|_| ()).await?;
    let mut control = worker.control.clone();
    let request = from(&archives, 0);
    let first = tokio::spawn(async move { control.load_adapter(request).await });
    archives.asked(1).await?;
    let second = worker.load("expert", &adapter("rslora")).await?;
    archives.set_answering(true);
    let superseded = first.await?.unwrap_err();
    assert_eq!(superseded.code(), Code::Aborted);
    assert!(superseded.message().contains("another call for this name came after it"), "{}", superseded.message());
    let state = worker.state(|state| state.adapters.len() == 1).await?;
    assert_eq!(state.adapters[0].digest, second.digest);
    worker.stop().await
}

#[tokio::test]
async fn a_load_whose_caller_left_brings_nothing() -> Result<()> {
    let archives = Archives::serve(&[adapter("r4-all"), adapter("r8-attn")]).await?;
    archives.set_answering(false);
    let mut worker = Worker::start(|_| ()).await?;
    let mut control = worker.control.clone();
    let request = from(&archives, 0);
    let load = tokio::spawn(async move { control.load_adapter(request).await });
    archives.asked(1).await?;
    load.abort();
    assert!(load.await.unwrap_err().is_cancelled());
    archives.set_answering(true);
    // Fetched after it, as what was given up may still be written.
    let other = v1::LoadAdapterRequest { name: "other".into(), ..from(&archives, 1) };
    worker.control.load_adapter(other).await?;
    let state = worker.state(|state| !state.adapters.is_empty()).await?;
    assert_eq!(state.adapters.iter().map(|adapter| adapter.name.as_str()).collect::<Vec<_>>(), ["other"]);
    worker.stop().await
}

/// Names in a folder.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.by_ref().collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Models that were converted, too, are held under the bound of the cache: all but the one that is served.
#[tokio::test]
async fn converted_models_make_room() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let converted = cache.path().join("converted");
    let run = |precision, bytes_max| {
        let (cache, converted) = (cache.path().to_owned(), converted.clone());
        async move {
            let mut config = tiny::worker(&cache)?;
            config.model.precision = PrecisionChoice::Exactly(precision);
            config.artifacts.bytes_max = bytes_max;
            config.source = Source::new(config.source.uri.clone());
            let shutdown = CancellationToken::new();
            let (ready, seen) = (shutdown.clone(), converted.clone());
            let served = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let while_served = served.clone();
            slm_worker::run(config, shutdown, move |event| {
                if let WorkerEvent::Ready { .. } = event {
                    *while_served.lock().unwrap() = names(&seen).unwrap();
                    ready.cancel();
                }
            })
            .await?;
            let served = served.lock().unwrap().clone();
            anyhow::Ok(served)
        }
    };
    let count = |names: &[String], what: &str| names.iter().filter(|name| name.contains(what)).count();
    let served = run(Precision::F32, None).await?;
    assert_eq!((served.len(), count(&served, "-f32-")), (2, 2), "{served:?}");
    let served = run(Precision::Int8, None).await?;
    assert_eq!((served.len(), count(&served, "-int8-")), (4, 2), "without a bound nothing goes: {served:?}");
    let served = run(Precision::Int8, Some(1)).await?;
    assert_eq!((served.len(), count(&served, "-int8-")), (2, 2), "what is served stays: {served:?}");
    let served = run(Precision::F32, Some(1)).await?;
    assert_eq!((served.len(), count(&served, "-f32-")), (2, 2), "{served:?}");
    Ok(())
}

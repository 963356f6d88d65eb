//! One worker in this process, over loopback, on the tiny model of the parity suite: what callers and controllers see.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use slm_proto::v1::{self, generate_request::Input, generate_response::Event};
use slm_tests::{
    archives::Archives,
    parity::Vectors,
    tiny::{self, Worker, adapter, greedy, ids},
};
use slm_worker::{WorkerEvent, model::ModelOptions};
use tokio_util::sync::CancellationToken;
use tonic::Code;

async fn start(change: impl FnOnce(&mut ModelOptions)) -> Result<Worker> {
    Worker::start(|config| change(&mut config.model)).await
}

#[tokio::test]
async fn a_model_without_a_tokenizer_takes_ids_and_says_so_to_text() -> Result<()> {
    let mut worker = start(|_| ()).await?;
    let text = v1::GenerateRequest { input: Some(Input::Prompt("hello".into())), ..greedy("tiny", &[], 1) };
    let refused = worker.generation.generate(text).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "model `tiny` has no tokenizer; send token_ids")
    );
    let unknown = worker.generation.generate(greedy("tinny", &[5], 1)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("nearest: `tiny`"), "{}", unknown.message());
    let beyond = worker.generation.generate(greedy("tiny", &[5, 70_000], 1)).await.unwrap_err();
    assert!(beyond.message().starts_with("token_ids[1] is 70000; the vocabulary"), "{}", beyond.message());
    worker.stop().await
}

#[tokio::test]
async fn a_full_worker_refuses_and_says_how_full() -> Result<()> {
    let mut worker = start(|model| (model.sequences_max, model.queue_max) = (1, 1)).await?;
    let mut streams = Vec::new();
    let refused = loop {
        match worker.generation.generate(greedy("tiny", &[5], 250)).await {
            Ok(stream) => streams.push(stream.into_inner()),
            Err(status) => break status,
        }
        ensure!(streams.len() < 1000, "never full");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("retry later"), "{}", refused.message());
    drop(streams);
    worker.stop().await
}

/// Why several answers to a prompt cost it once: the second finds the first one's full pages while that still runs.
#[tokio::test]
async fn a_prompt_is_computed_once_for_answers_that_run_at_the_same_time() -> Result<()> {
    let mut worker = start(|_| ()).await?;
    let prompt: Vec<u32> = (0..100).map(|index| 5 + index % 50).collect();
    let mut first = worker.generation.generate(greedy("tiny", &prompt, 100)).await?.into_inner();
    while !matches!(first.message().await?.context("the end")?.event, Some(Event::Delta(_))) {}
    let second = worker.generation.complete(greedy("tiny", &prompt, 1)).await?.into_inner();
    let usage = second.usage.context("no usage")?;
    assert_eq!((usage.prompt_tokens, usage.cached_tokens), (100, 96));
    drop(first);
    worker.stop().await
}

#[tokio::test]
async fn a_stream_ends_on_the_version_it_began_with() -> Result<()> {
    let case = |name: &str| Vectors::read(&adapter(name)).map(|mut vectors| vectors.cases.remove(1));
    let (old, new) = (case("r4-all")?, case("rslora")?);
    let count = old.greedy.len() as u32;
    let mut worker = start(|_| ()).await?;
    let first = worker.load("expert", &adapter("r4-all")).await?;

    // One that has begun when the version changes, one that begins after.
    let mut running = worker.generation.generate(greedy("expert", &old.prompt, count)).await?.into_inner();
    let started = running.message().await?.context("no Started")?;
    let second = worker.load("expert", &adapter("rslora")).await?;
    let mut fresh = worker.generation.generate(greedy("expert", &new.prompt, count)).await?.into_inner();

    let Some(Event::Started(started)) = started.event else { anyhow::bail!("not Started") };
    assert_eq!(started.expert.unwrap().digest, first.digest);
    assert_eq!(ids(&mut running).await?, old.greedy);
    assert_eq!(ids(&mut fresh).await?, new.greedy);
    assert!(first.digest != second.digest && second.generation > first.generation);

    // Nothing of the old version stays behind.
    drop(running);
    let state = worker.state(|state| state.adapters.len() == 1).await?;
    assert_eq!(state.adapters[0].digest, second.digest);
    worker.stop().await
}

/// Files in the worker's cache that adapters were packed into.
fn packed_files(cache: &Path) -> Vec<PathBuf> {
    let folders = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let derived = folders(&cache.join("artifacts")).flat_map(|entry| folders(&entry.join("derived")));
    derived.filter(|path| path.extension().is_some_and(|extension| extension == "packed")).collect()
}

/// What is in the cache is packed once. The file is mapped by whoever loads it again, and made again when it is damaged.
#[tokio::test]
async fn an_adapter_out_of_the_cache_is_packed_once() -> Result<()> {
    let case = Vectors::read(&adapter("r4-all"))?.cases.remove(1);
    let archives = Archives::serve(&[adapter("r4-all")]).await?;
    let mut worker = start(|_| ()).await?;
    let cache = worker.cache.path().to_owned();
    let is_mapped = || -> Result<bool> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        Ok(maps.lines().any(|line| line.contains(&*cache.to_string_lossy()) && line.ends_with(".packed")))
    };
    let mut whole = None;
    for name in ["first", "again", "damaged", "mended"] {
        let (source, digest) = archives.source(0);
        let request = v1::LoadAdapterRequest { name: name.into(), source, digest, ..Default::default() };
        let loaded = worker.control.load_adapter(request).await?.into_inner();
        assert_eq!((loaded.rank_max, loaded.target_modules.len()), (4, 7));
        let mut stream =
            worker.generation.generate(greedy(name, &case.prompt, case.greedy.len() as u32)).await?.into_inner();
        assert_eq!(ids(&mut stream).await?, case.greedy, "{name}");

        assert_eq!(is_mapped()?, matches!(name, "again" | "mended"), "{name}");
        worker.control.unload_adapter(v1::UnloadAdapterRequest { name: name.into(), digest: String::new() }).await?;
        // Who keeps it holds its lease meanwhile.
        worker.state(|state| state.adapters.is_empty()).await?;
        let file = packed_files(&cache).pop().context("nothing was kept")?;
        let bytes = fs::read(&file)?;
        assert_eq!(whole.get_or_insert(bytes.clone()), &bytes, "{name}");
        if name == "again" {
            fs::remove_file(&file)?;
            fs::write(&file, &bytes[..bytes.len() / 2])?;
        }
    }
    worker.stop().await
}

#[tokio::test]
async fn a_refused_adapter_changes_nothing() -> Result<()> {
    let mut worker = start(|_| ()).await?;
    let served = worker.load("expert", &adapter("r4-all")).await?;
    let broken = tempfile::tempdir()?;
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(adapter("rslora").join(file), broken.path().join(file))?;
    }
    let weights = broken.path().join("adapter_model.safetensors");
    let whole = fs::read(&weights)?;
    fs::write(&weights, &whole[..whole.len() / 2])?;
    for (path, says) in [(broken.path().to_owned(), "adapter_model.safetensors"), (adapter("dora"), "use_dora")] {
        let refused = worker.load("expert", &path).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(says), "{}", refused.message());
    }
    let taken = worker.load("tiny", &adapter("r4-all")).await.unwrap_err();
    assert_eq!(taken.message(), "`tiny` is the name of the base model; load the adapter under another name");
    let state = worker.state(|state| state.adapters.len() == 1).await?;
    assert!(state.adapters.iter().any(|a| a.name == "expert" && a.digest == served.digest));
    worker.stop().await?;

    let mut without = start(|options| options.adapter_slots = 0).await?;
    let full = without.load("expert", &adapter("r4-all")).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("spec.adapters.slots"), "{}", full.message());
    without.stop().await
}

#[tokio::test]
async fn a_draining_worker_finishes_what_runs_and_takes_nothing_new() -> Result<()> {
    let mut worker = start(|_| ()).await?;
    let mut running = worker.generation.generate(greedy("tiny", &[5], 200)).await?.into_inner();
    running.message().await?.context("no Started")?;
    worker.shutdown.cancel();
    let count = ids(&mut running).await?.len();
    assert_eq!(count, 200);
    worker.done.await??;
    Ok(())
}

#[tokio::test]
async fn a_deadline_ends_the_answer_with_its_status() -> Result<()> {
    let mut worker = start(|model| model.sequences_max = 1).await?;
    let mut request = tonic::Request::new(greedy("tiny", &[5], 250));
    request.set_timeout(Duration::from_millis(1));
    let outcome = match worker.generation.generate(request).await {
        Err(status) => Err(status),
        Ok(stream) => ids(&mut stream.into_inner()).await,
    };
    // The client's own clock may be the first; tonic then says Cancelled, with a source that no server's status has.
    let status = outcome.unwrap_err();
    assert!(status.code() == Code::DeadlineExceeded || std::error::Error::source(&status).is_some(), "{status:?}");
    worker.state(|state| state.sequences_running == 0).await?;
    worker.stop().await
}

/// A converted model whose weights were cut: the folder is named, and what to do.
#[tokio::test]
async fn a_damaged_bundle_is_named() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let run = || async {
        let config = tiny::worker(cache.path())?;
        let shutdown = CancellationToken::new();
        let ready = shutdown.clone();
        let ended = slm_worker::run(config, shutdown, move |event| {
            if let WorkerEvent::Ready { .. } = event {
                ready.cancel();
            }
        });
        anyhow::Ok(ended.await)
    };
    run().await??;
    let bundles = fs::read_dir(cache.path().join("converted"))?.collect::<Result<Vec<_>, _>>()?;
    let weights = bundles.into_iter().map(|entry| entry.path().join("model.onnx.data")).find(|path| path.exists());
    let weights = weights.context("a bundle")?;
    let whole = fs::metadata(&weights)?.len();
    fs::File::options().write(true).open(&weights)?.set_len(whole / 2)?;
    let error = run().await?.err().context("it serves")?.to_string();
    let folder = weights.parent().context("a folder")?.display().to_string();
    ensure!(error.starts_with(&folder) && error.contains("delete it"), "{error}");
    fs::remove_dir_all(folder)?;
    run().await??;
    Ok(())
}

/// A cache that is too small for a single request is refused by name; one that is just large enough serves.
#[tokio::test]
async fn a_cache_without_room_for_one_sequence_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut config = tiny::worker(dir.path())?;
    config.model.context_length = Some(64);
    config.model.kv_cache_bytes = Some(10_000);
    let refused = slm_worker::run(config, CancellationToken::new(), |_| ()).await.expect_err("too small").to_string();
    let needed = refused.split_whitespace().filter_map(|word| word.trim_end_matches(';').parse::<u64>().ok()).max();
    let needed = needed.context("no number")?;
    assert_eq!(
        refused,
        format!(
            "spec.runtime.kvCache.bytes is 10000, but the keys and values of one sequence of 64 tokens take {needed}; raise \
             it or lower spec.runtime.contextLength"
        )
    );
    let mut worker = start(|model| (model.context_length, model.kv_cache_bytes) = (Some(64), Some(needed))).await?;
    assert_eq!(worker.state(|_| true).await?.kv_tokens_max, 64);
    let request = greedy("tiny", &[1, 2, 3], 5);
    assert_eq!(
        worker.generation.complete(request).await?.into_inner().usage.map(|usage| usage.completion_tokens),
        Some(5)
    );
    worker.stop().await
}

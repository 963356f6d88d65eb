//! The self-check of a device, with ONNX Runtime's CPU provider in the device's place.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use slm_convert::{
    bundle::{Bundle, PrecisionChoice},
    checkpoint::Checkpoint,
    graph::{Activations, Precision},
};
use slm_worker::{
    adapters::AdapterTable,
    runtime::{AdapterRoom, Opened, Provider, Runtime, SelfCheck, SelfCheckError, SessionConfig},
};

const ROOM: AdapterRoom = AdapterRoom { slots: 1, rank_max: 8 };

fn family() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("parity/data/llama")
}

fn config(pages: usize) -> SessionConfig {
    SessionConfig { context_length: 64, pages, sequences: pages, logits: pages, threads: 1 }
}

fn bundle(checkpoint: &Path, provider: Provider, precision: Precision, cache: &Path) -> Result<Bundle> {
    let flavour = provider.flavour(PrecisionChoice::Exactly(precision));
    Ok(Bundle::open_or_build(&Checkpoint::open(checkpoint)?, flavour, cache, &mut |_, _| ())?)
}

/// Compares a session of `provider` on `bundle` with what is expected of `expected`. A device that ignores adapters looks them
/// up in another table.
fn check(
    provider: Provider,
    [bundle, expected]: [&Bundle; 2],
    pages: usize,
    ignores_adapters: bool,
) -> Result<Result<f32, SelfCheckError>> {
    let runtime = Runtime::load()?;
    let check = SelfCheck::against(provider, &runtime, expected, config(pages), ROOM)?;
    let [own, other] = [(); 2].map(|()| Arc::new(AdapterTable::new(ROOM.slots)));
    let seen = if ignores_adapters { other } else { own.clone() };
    let Opened { mut backend, loader, .. } = provider.open(&runtime, bundle, config(pages), ROOM, seen)?;
    let compared = check.compare(&mut *backend, &loader, &own);
    assert!(own.get(0).is_none(), "the synthetic adapter is gone");
    Ok(compared)
}

#[test]
fn what_computes_the_same_passes_in_every_form_and_with_room_for_one_sequence() -> Result<()> {
    let cache = tempfile::tempdir()?;
    for (provider, precision) in [
        (Provider::CpuGqa(Activations::F32), Precision::F32),
        (Provider::CpuGqa(Activations::F16), Precision::F16),
        (Provider::CpuDelta(Activations::F32), Precision::Int4),
        (Provider::CpuStandard(Activations::F32), Precision::F32),
    ] {
        let bundle = bundle(&family(), provider, precision, cache.path())?;
        for pages in [1, 3] {
            let difference = check(provider, [&bundle, &bundle], pages, false)??;
            // One sequence after another rounds otherwise than both in one step.
            assert!(difference < 1e-3, "{provider:?} with {pages}: {difference}");
        }
    }
    Ok(())
}

#[test]
fn a_wrong_scale_in_one_layer_is_found() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let wrong = tempfile::tempdir()?;
    copy(&family(), wrong.path())?;
    scale(&wrong.path().join("model.safetensors"), "model.layers.1.input_layernorm.weight", 1.5)?;
    let provider = Provider::CpuGqa(Activations::F32);
    let right = bundle(&family(), provider, Precision::F32, cache.path())?;
    let wrong = bundle(wrong.path(), provider, Precision::F32, cache.path())?;
    let error = check(provider, [&wrong, &right], 2, false)?.expect_err("a wrong scale");
    let message = error.to_string();
    assert!(message.contains("self-check: the base, token 0: a logit differs"), "{message}");
    assert!(message.contains("do not serve on it"), "{message}");
    Ok(())
}

#[test]
fn a_device_that_ignores_adapters_is_found() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let provider = Provider::CpuDelta(Activations::F32);
    let bundle = bundle(&family(), provider, Precision::F32, cache.path())?;
    let error = check(provider, [&bundle, &bundle], 2, true)?.expect_err("no adapter").to_string();
    assert!(error.contains("self-check: the synthetic adapter, token 0"), "{error}");
    Ok(())
}

#[test]
fn the_expected_logits_are_kept_and_computed_again_when_damaged() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let provider = Provider::CpuGqa(Activations::F32);
    let bundle = bundle(&family(), provider, Precision::F32, cache.path())?;
    check(provider, [&bundle, &bundle], 2, false)??;
    let kept = kept(&bundle.dir)?;
    let first = fs::read(&kept)?;
    let written = fs::metadata(&kept)?.modified()?;
    check(provider, [&bundle, &bundle], 2, false)??;
    assert_eq!(fs::metadata(&kept)?.modified()?, written, "read, not written again");
    for damage in [&first[..first.len() / 2], b"", &[&first[..first.len() - 1], b"!"].concat()] {
        fs::write(&kept, damage)?;
        check(provider, [&bundle, &bundle], 2, false)??;
        assert_eq!(fs::read(&kept)?, first, "computed again");
    }
    Ok(())
}

fn kept(dir: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut logits = files.filter(|path| path.extension().is_some_and(|extension| extension == "logits"));
    logits.next().context("kept logits")
}

/// Multiplies a tensor of 32-bit floats.
fn scale(path: &Path, name: &str, factor: f32) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into()?) as usize;
    let offsets: serde_json::Value = serde_json::from_slice(&bytes[8..header])?;
    let offset = |index: usize| offsets[name]["data_offsets"][index].as_u64().context("an offset");
    let (begin, end) = (header + offset(0)? as usize, header + offset(1)? as usize);
    assert_eq!(offsets[name]["dtype"], "F32");
    for value in bytes[begin..end].chunks_exact_mut(4) {
        let scaled = f32::from_le_bytes(value.try_into()?) * factor;
        value.copy_from_slice(&scaled.to_le_bytes());
    }
    Ok(fs::write(path, bytes)?)
}

/// Copies the files of a folder, not its folders.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

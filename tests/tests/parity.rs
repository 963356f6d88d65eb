//! The parity suite. `SLM_PARITY_DIR` names another folder than the project's own; `SLM_PARITY_FAMILIES` (comma
//! separated) limits it to some families; `SLM_PARITY_PROVIDER` computes on another provider than the project's own
//! operators: `CpuGqa` (the graphs for CUDA on ONNX Runtime's CPU provider), `CpuStandard` (those for TensorRT), `CpuDelta`
//! (those for OpenVINO), the same in 16 bits (`CpuGqaF16`, `CpuStandardF16`, `CpuDeltaF16`), `Cuda` or
//! `OpenVino`.

use std::{env, path::PathBuf};

use anyhow::{Context, Result};
use slm_convert::graph::{Activations, Precision};
use slm_tests::parity::{Family, Vectors, file_name, folders, relative_error};
use slm_worker::runtime::{OpenVinoDevice, Provider};

/// Largest difference of a logit, over the largest logit of its row.
const ERROR_MAX: f32 = 1e-3;
/// The same with activations, keys and values in 16 bits. Of these tiny models transformers' own 16 bits are up to 2.5e-2 from
/// its 32 bits.
const ERROR_MAX_F16: f32 = 3e-2;

/// The provider, the precision without rounding of weights beyond it, and the bound on errors.
#[derive(Clone, Copy)]
struct On {
    provider: Provider,
    precision: Precision,
    error_max: f32,
    /// Whether greedy tokens must be the reference's.
    greedy: bool,
}

/// What the environment asks for.
fn on() -> Result<On> {
    let exact = |provider| On { provider, precision: Precision::F32, error_max: ERROR_MAX, greedy: true };
    let half = |provider| On { provider, precision: Precision::F16, error_max: ERROR_MAX_F16, greedy: false };
    match env::var("SLM_PARITY_PROVIDER").unwrap_or_default().as_str() {
        "" | "Cpu" => Ok(exact(Provider::Cpu)),
        "CpuGqa" => Ok(exact(Provider::CpuGqa(Activations::F32))),
        "CpuGqaF16" => Ok(half(Provider::CpuGqa(Activations::F16))),
        "CpuStandard" => Ok(exact(Provider::CpuStandard(Activations::F32))),
        "CpuStandardF16" => Ok(half(Provider::CpuStandard(Activations::F16))),
        "CpuDelta" => Ok(exact(Provider::CpuDelta(Activations::F32))),
        "CpuDeltaF16" => Ok(half(Provider::CpuDelta(Activations::F16))),
        "Cuda" => Ok(half(Provider::Cuda(0))),
        "OpenVino" => Ok(exact(Provider::OpenVino { device: OpenVinoDevice::Cpu })),
        other => anyhow::bail!(
            "SLM_PARITY_PROVIDER={other}: Cpu, Cuda, OpenVino, and CpuGqa, CpuStandard and CpuDelta, these also with F16 behind, are there"
        ),
    }
}

fn families() -> Result<Vec<PathBuf>> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("parity").join("data");
    let dir = env::var_os("SLM_PARITY_DIR").filter(|dir| !dir.is_empty()).map_or(own, PathBuf::from);
    let wanted = env::var("SLM_PARITY_FAMILIES").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|name| !name.is_empty()).collect();
    let mut all = folders(&dir).with_context(|| dir.display().to_string())?;
    all.retain(|dir| dir.join("vectors.safetensors").exists());
    all.retain(|dir| wanted.is_empty() || wanted.contains(&file_name(dir).as_str()));
    anyhow::ensure!(!all.is_empty(), "{}: no families", dir.display());
    Ok(all)
}

/// The family is one that is not served yet, and says so; every other refusal is a failure.
fn unsupported(error: &anyhow::Error) -> bool {
    let message = error.to_string();
    message.contains("`model_type`") || message.contains("not there yet in graphs for accelerators")
}

#[test]
fn logits_and_greedy_tokens_are_those_of_the_reference() -> Result<()> {
    compare(on()?)
}

/// The graphs for CUDA, on the CPU provider: through the same backend, with the host's memory in the place of a GPU's.
#[test]
fn graphs_for_cuda_give_the_logits_and_greedy_tokens_of_the_reference() -> Result<()> {
    let provider = Provider::CpuGqa(Activations::F32);
    compare(On { provider, precision: Precision::F32, error_max: ERROR_MAX, greedy: true })
}

/// The graphs for TensorRT, as above.
#[test]
fn graphs_for_tensorrt_give_the_logits_and_greedy_tokens_of_the_reference() -> Result<()> {
    let provider = Provider::CpuStandard(Activations::F32);
    compare(On { provider, precision: Precision::F32, error_max: ERROR_MAX, greedy: true })
}

/// The graphs for OpenVINO, as above.
#[test]
fn graphs_for_openvino_give_the_logits_and_greedy_tokens_of_the_reference() -> Result<()> {
    let provider = Provider::CpuDelta(Activations::F32);
    compare(On { provider, precision: Precision::F32, error_max: ERROR_MAX, greedy: true })
}

fn compare(On { provider, precision, error_max, greedy }: On) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let mut failures = Vec::new();
    let mut compared = 0;
    for dir in families()? {
        let mut family = match Family::open(&dir, cache.path(), provider, precision) {
            Ok(family) => family,
            Err(error) if unsupported(&error) => {
                println!("{:<12} not compared: {error:#}", file_name(&dir));
                continue;
            }
            Err(error) => {
                println!("{:<12} {error:#}", file_name(&dir));
                failures.push(format!("{}: {error:#}", file_name(&dir)));
                continue;
            }
        };
        compared += 1;
        let base = std::mem::replace(&mut family.vectors, Vectors { cases: Vec::new() });
        let adapters = std::mem::take(&mut family.adapters);
        let all = std::iter::once(("base", None, &base))
            .chain(adapters.iter().map(|(name, lease, vectors)| (name.as_str(), Some(lease.slot()), vectors)));
        for (name, slot, vectors) in all {
            let (mut error, mut same) = (0f32, true);
            for case in &vectors.cases {
                let vocab = case.logits.len() / case.prompt.len();
                error = error.max(relative_error(&family.logits(&case.prompt, slot)?, &case.logits, vocab));
                same &= family.greedy(&[(&case.prompt, slot)], case.greedy.len())?[0].tokens == case.greedy;
            }
            let verdict = if same { "identical" } else { "DIFFERENT" };
            println!("{:<12} {name:<10} largest relative error {error:.1e}  greedy tokens {verdict}", family.name);
            if !(error <= error_max && (same || !greedy)) {
                failures.push(format!("{}/{name}", family.name));
            }
        }
        for (name, message) in &family.refused {
            println!("{:<12} {name:<10} refused: {message}", family.name);
            let reason = std::fs::read_to_string(dir.join("adapters").join(name).join("MUST_BE_REJECTED"))?;
            let field = reason.split_whitespace().last().unwrap_or_default();
            if !message.contains(field) {
                failures.push(format!("{}/{name}: the refusal does not name {field}", family.name));
            }
        }
    }
    assert!(failures.is_empty(), "not at parity: {failures:?}");
    assert!(compared > 0, "no family was compared");
    Ok(())
}

/// Rows without an adapter, with different adapters and with different ranks in one step: each gets what it gets alone.
#[test]
fn a_mixed_batch_gives_each_row_what_it_gets_alone() -> Result<()> {
    mixed_batch(on()?)
}

#[test]
fn a_mixed_batch_of_a_graph_for_cuda_gives_each_row_what_it_gets_alone() -> Result<()> {
    let provider = Provider::CpuGqa(Activations::F32);
    mixed_batch(On { provider, precision: Precision::F32, error_max: ERROR_MAX, greedy: true })
}

#[test]
fn a_mixed_batch_of_a_graph_for_tensorrt_gives_each_row_what_it_gets_alone() -> Result<()> {
    let provider = Provider::CpuStandard(Activations::F32);
    mixed_batch(On { provider, precision: Precision::F32, error_max: ERROR_MAX, greedy: true })
}

#[test]
fn a_mixed_batch_of_a_graph_for_openvino_gives_each_row_what_it_gets_alone() -> Result<()> {
    let provider = Provider::CpuDelta(Activations::F32);
    mixed_batch(On { provider, precision: Precision::F32, error_max: ERROR_MAX, greedy: true })
}

fn mixed_batch(On { provider, precision, greedy, .. }: On) -> Result<()> {
    let cache = tempfile::tempdir()?;
    for dir in families()? {
        let Ok(mut family) = Family::open(&dir, cache.path(), provider, precision) else { continue };
        let base = std::mem::replace(&mut family.vectors, Vectors { cases: Vec::new() });
        let adapters = std::mem::take(&mut family.adapters);
        let mut prompts = Vec::new();
        let mut expected = Vec::new();
        for i in 0..base.cases.len() {
            let of = |vectors: &Vectors| (vectors.cases[i].prompt.clone(), vectors.cases[i].greedy.clone());
            let (prompt, greedy) = of(&base);
            prompts.push((prompt, None));
            expected.push(greedy);
            for (_, lease, vectors) in &adapters {
                let (prompt, greedy) = of(vectors);
                prompts.push((prompt, Some(lease.slot())));
                expected.push(greedy);
            }
        }
        let rows: Vec<_> = prompts.iter().map(|(prompt, slot)| (prompt.as_slice(), *slot)).collect();
        let answers = family.greedy(&rows, expected[0].len())?;
        let same = answers.iter().zip(&expected).filter(|(answer, expected)| answer.tokens == **expected).count();
        println!("{}: {same} of {} rows in one batch have the reference's tokens", family.name, rows.len());
        // Where 16 bits round differently, some rows may part from the reference, but not most.
        let least = if greedy { rows.len() } else { rows.len() / 2 };
        assert!(same >= least, "{}: {same} of {}", family.name, rows.len());
    }
    Ok(())
}

/// Over quantised weights not even the last bit of a logit tells what else was in the batch.
#[test]
fn over_integers_a_mixed_batch_gives_each_row_the_bits_that_it_gets_alone() -> Result<()> {
    const TOKENS: usize = 8;
    let cache = tempfile::tempdir()?;
    let all = families()?
        .into_iter()
        .flat_map(|dir| [Precision::Int4, Precision::Int8].map(|precision| (dir.clone(), precision)));
    for (dir, precision) in all {
        let Ok(mut family) = Family::open(&dir, cache.path(), Provider::Cpu, precision) else { continue };
        let cases = std::mem::replace(&mut family.vectors, Vectors { cases: Vec::new() }).cases;
        let adapters = std::mem::take(&mut family.adapters);
        let slots: Vec<_> =
            std::iter::once(None).chain(adapters.iter().map(|(_, lease, _)| Some(lease.slot()))).collect();
        let rows: Vec<_> =
            cases.iter().flat_map(|case| slots.iter().map(|&slot| (case.prompt.as_slice(), slot))).collect();
        let mut alone = Vec::new();
        for row in &rows {
            alone.extend(family.greedy(std::slice::from_ref(row), TOKENS)?);
        }
        assert!(alone[0] != alone[1], "{}: the first adapter changes nothing", family.name);
        // All together, in the other order, and every second one: batches of several sizes and orders.
        for chosen in
            [(0..rows.len()).collect::<Vec<_>>(), (0..rows.len()).rev().collect(), (0..rows.len()).step_by(2).collect()]
        {
            let together: Vec<_> = chosen.iter().map(|&i| rows[i]).collect();
            for (i, answer) in chosen.iter().zip(family.greedy(&together, TOKENS)?) {
                assert!(answer == alone[*i], "{}: row {i} of {}", family.name, rows.len());
            }
        }
        println!("{}: {} rows in {precision}, bit for bit", family.name, rows.len());
    }
    Ok(())
}

/// `SLM_PARITY_PROVIDER=OpenVino` computes them on OpenVINO.
#[test]
fn over_integers_graphs_for_openvino_give_what_those_for_cuda_give() -> Result<()> {
    let provider = match on()?.provider {
        asked @ Provider::OpenVino { .. } => asked,
        _ => Provider::CpuDelta(Activations::F32),
    };
    as_for_cuda(provider, &[Precision::Int4, Precision::Int8])
}

#[test]
fn over_integers_graphs_for_tensorrt_give_what_those_for_cuda_give() -> Result<()> {
    as_for_cuda(Provider::CpuStandard(Activations::F32), &[Precision::Int4])
}

/// Graphs of rows take the same quantised weights, whatever their form, and make the same of them.
fn as_for_cuda(provider: Provider, precisions: &[Precision]) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let mut compared = 0;
    for (dir, &precision) in
        families()?.into_iter().flat_map(|dir| precisions.iter().map(move |precision| (dir.clone(), precision)))
    {
        let expected = Family::open(&dir, cache.path(), Provider::CpuGqa(Activations::F32), precision);
        let Ok(mut expected) = expected else { continue };
        let mut family = Family::open(&dir, cache.path(), provider, precision)?;
        for case in &std::mem::take(&mut expected.vectors.cases) {
            let slots = [None, family.adapters.first().map(|(_, lease, _)| lease.slot())];
            for slot in slots {
                let vocab = case.logits.len() / case.prompt.len();
                let (ours, theirs) = (family.logits(&case.prompt, slot)?, expected.logits(&case.prompt, slot)?);
                let error = relative_error(&ours, &theirs, vocab);
                assert!(error <= 1e-4, "{} in {precision}: {error:.1e}", family.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 0, "nothing was compared");
    Ok(())
}

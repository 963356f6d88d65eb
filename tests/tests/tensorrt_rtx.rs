//! Graphs for TensorRT are parsed whole and compiled by TensorRT-RTX, of every family, without a GPU: `make tensorrt-rtx`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use slm_convert::{
    bundle::{Bundle, FlavourChoice, PrecisionChoice},
    checkpoint::Checkpoint,
    graph::{Activations, Form, Precision},
};
use slm_tests::{
    parity::{file_name, folders},
    real,
    swarm::{repository, run},
};

/// Compute capabilities of A100, Ada and Blackwell.
const CAPABILITIES: &str = "SM80,SM89,SM120";

/// What the script says of a graph.
#[derive(Deserialize)]
struct Compiled {
    layers: usize,
    engines: std::collections::BTreeMap<String, Engine>,
}

#[derive(Deserialize)]
struct Engine {
    seconds: f64,
    bytes: u64,
}

#[test]
#[ignore = "needs TensorRT-RTX, which is 260 MB: make tensorrt-rtx"]
fn every_family_is_taken_whole_and_compiles() -> Result<()> {
    let python =
        PathBuf::from(env::var("SLM_TENSORRT_RTX_PYTHON").context("SLM_TENSORRT_RTX_PYTHON: run make tensorrt-rtx")?);
    let cache = tempfile::tempdir()?;
    let (mut failures, mut compiled) = (Vec::new(), 0);
    for (model, checkpoint) in models()? {
        for precision in [Precision::F16, Precision::Int4] {
            let name = format!("{model:<14} {precision:<5}");
            match graph(&checkpoint, precision, cache.path()) {
                Err(error) if error.to_string().contains("not there yet in graphs for accelerators") => {
                    println!("{name} not compiled: {error}");
                }
                Err(error) => failures.push(format!("{name} {error:#}")),
                Ok(graph) => match compile(&python, &graph, cache.path()) {
                    Ok(said) => {
                        println!("{name} {said}");
                        compiled += 1;
                    }
                    Err(error) => failures.push(format!("{name} {error:#}")),
                },
            }
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    ensure!(compiled > 0, "nothing was compiled");
    Ok(())
}

/// The families of `SLM_PARITY_DIR`; unset, the project's own and the quickstart's base.
fn models() -> Result<Vec<(String, PathBuf)>> {
    let asked = env::var_os("SLM_PARITY_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("parity/data");
    let suite = folders(asked.as_ref().unwrap_or(&own))?;
    let families = suite.into_iter().filter(|dir| dir.join("vectors.safetensors").exists());
    let mut models: Vec<_> = families.map(|dir| (file_name(&dir), dir)).collect();
    if asked.is_none() {
        models.push(("SmolLM2-135M".to_owned(), real::gguf()?));
    }
    Ok(models)
}

fn graph(dir: &Path, precision: Precision, cache: &Path) -> Result<PathBuf> {
    let precision = PrecisionChoice::Exactly(precision);
    let flavour = FlavourChoice { form: Form::Standard, activations: Activations::F16, precision };
    Ok(Bundle::open_or_build(&Checkpoint::open(dir)?, flavour, cache, &mut |_, _| ())?.graph())
}

/// The number of layers, and of each engine seconds and size.
fn compile(python: &Path, graph: &Path, room: &Path) -> Result<String> {
    let out = room.join("compiled.jsonl");
    let mut command = Command::new(python);
    command.arg(repository().join("tests/clients/compile_with_tensorrt_rtx.py")).arg(&out).arg(CAPABILITIES).arg(graph);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.said);
    let said: Compiled = serde_json::from_slice(&fs::read(&out)?)?;
    let engine = |(name, engine): (&String, &Engine)| {
        format!("{name} {:.1} s, {:.1} MB", engine.seconds, engine.bytes as f64 / 1e6)
    };
    let engines: Vec<String> = said.engines.iter().map(engine).collect();
    Ok(format!("{} layers; {}", said.layers, engines.join("; ")))
}

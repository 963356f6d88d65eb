//! Parity with the reference implementations: logits and greedy tokens of tiny models and adapters.
//!
//! A suite is a folder of families, each an ordinary Hugging Face model folder with `vectors.safetensors` beside it
//! and adapters under `adapters/`. See `tests/parity/README.md`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors};
use slm_convert::{
    bundle::{Bundle, PrecisionChoice},
    checkpoint::Checkpoint,
    graph::Precision,
    peft::Adapter,
};
use slm_worker::{
    adapters::{AdapterInfo, AdapterLease, Adapters},
    runtime::{AdapterRoom, Backend, LogitsRequest, Opened, Provider, Runtime, SessionConfig, TOKENS_MAX},
    sample::argmax,
};

use crate::sequence::{Sequence, step};

/// Prompts with what the reference makes of them.
#[derive(Debug)]
pub struct Vectors {
    /// One case a prompt.
    pub cases: Vec<Case>,
}

/// One prompt.
#[derive(Debug)]
pub struct Case {
    /// Token ids.
    pub prompt: Vec<u32>,
    /// Logits after each token of the prompt, row after row.
    pub logits: Vec<f32>,
    /// The greedy continuation.
    pub greedy: Vec<u32>,
}

impl Vectors {
    /// Reads `vectors.safetensors` in `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("vectors.safetensors");
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let ids = |name: String| -> Result<Vec<u32>> {
            let view = tensors.tensor(&name)?;
            ensure!(view.dtype() == Dtype::I64, "{name} is {:?}", view.dtype());
            Ok(view
                .data()
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default()) as u32)
                .collect())
        };
        let mut cases = Vec::new();
        while tensors.tensor(&format!("prompt.{}", cases.len())).is_ok() {
            let i = cases.len();
            let logits = tensors.tensor(&format!("logits.{i}"))?;
            ensure!(logits.dtype() == Dtype::F32, "logits.{i} is {:?}", logits.dtype());
            let logits =
                logits.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap_or_default())).collect();
            cases.push(Case { prompt: ids(format!("prompt.{i}"))?, logits, greedy: ids(format!("greedy.{i}"))? });
        }
        ensure!(!cases.is_empty(), "{}: no prompts", path.display());
        Ok(Self { cases })
    }
}

/// A family's model with all its adapters loaded.
pub struct Family {
    /// Folder name.
    pub name: String,
    /// Those of the base.
    pub vectors: Vectors,
    /// Adapters that must load, with their vectors.
    pub adapters: Vec<(String, Arc<AdapterLease>, Vectors)>,
    /// Adapters that must not, with what was said against them.
    pub refused: Vec<(String, String)>,
    context_length: usize,
    backend: Box<dyn Backend>,
}

/// A greedy continuation.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Logits of each, row after row.
    pub logits: Vec<f32>,
}

/// Sequences that a family's session holds.
pub const SEQUENCES: usize = 16;

/// Bound on the rank of its adapters.
const RANK_MAX: usize = 32;

impl Family {
    /// Opens the family in `dir` on that provider, converting into `cache`.
    pub fn open(dir: &Path, cache: &Path, provider: Provider, precision: Precision) -> Result<Self> {
        let checkpoint = Checkpoint::open(dir)?;
        let flavour = provider.flavour(PrecisionChoice::Exactly(precision));
        let bundle = Bundle::open_or_build(&checkpoint, flavour, cache, &mut |_, _| ())?;
        let adapters = Adapters::new(SEQUENCES, 0, 0);
        let vectors = Vectors::read(dir)?;
        // No longer than the reference's sequences: LongRoPE depends on the context that is served.
        let context_length = vectors.cases.iter().map(|case| case.prompt.len() + case.greedy.len()).max().unwrap_or(0);
        let pages = provider.pages_for(SEQUENCES, context_length);
        let config = SessionConfig { context_length, pages, sequences: SEQUENCES, logits: TOKENS_MAX, threads: 2 };
        let room = AdapterRoom { slots: SEQUENCES, rank_max: RANK_MAX };
        let Opened { backend, loader, .. } =
            provider.open(&Runtime::load()?, &bundle, config, room, adapters.table())?;
        let mut family =
            Self { name: file_name(dir), vectors, adapters: Vec::new(), refused: Vec::new(), context_length, backend };
        for dir in folders(&dir.join("adapters"))? {
            let name = file_name(&dir);
            let opened = Adapter::open(&dir, checkpoint.architecture());
            if dir.join("MUST_BE_REJECTED").exists() {
                match opened {
                    Ok(_) => bail!("{}/{name}: loaded, but it must be refused", family.name),
                    Err(error) => family.refused.push((name, error.to_string())),
                }
                continue;
            }
            let adapter = opened?;
            let loaded = loader.load(&adapter, 1.0)?;
            let info = AdapterInfo::new(&name, &loaded, 1.0, std::time::Duration::ZERO);
            let lease = adapters.publish(info, loaded)?;
            family.adapters.push((name, lease, Vectors::read(&dir)?));
        }
        Ok(family)
    }

    /// Logits after every token of `prompt`.
    pub fn logits(&mut self, prompt: &[u32], adapter: Option<usize>) -> Result<Vec<f32>> {
        let mut sequence = Sequence::new(&self.backend.geometry(), 0, self.context_length, adapter);
        sequence.push(prompt);
        Ok(step(&mut *self.backend, &mut [sequence], LogitsRequest::All)?.to_vec())
    }

    /// Greedy continuations of several prompts at once, each with its own adapter: all prompts in one step, then all
    /// answers together.
    pub fn greedy(&mut self, prompts: &[(&[u32], Option<usize>)], count: usize) -> Result<Vec<Answer>> {
        let geometry = self.backend.geometry();
        let mut answers: Vec<Answer> =
            prompts.iter().map(|_| Answer { tokens: Vec::new(), logits: Vec::new() }).collect();
        let mut sequences = Vec::new();
        for (index, &(prompt, adapter)) in prompts.iter().enumerate() {
            let mut sequence = Sequence::new(&geometry, index, self.context_length, adapter);
            sequence.push(prompt);
            sequences.push(sequence);
        }
        for _ in 0..count {
            let logits = step(&mut *self.backend, &mut sequences, LogitsRequest::Last)?;
            for (logits, (sequence, answer)) in
                logits.chunks_exact(geometry.vocab_size).zip(sequences.iter_mut().zip(&mut answers))
            {
                let (token, _) = argmax(logits).context("no largest logit")?;
                answer.tokens.push(token);
                answer.logits.extend_from_slice(logits);
                sequence.push(&[token]);
            }
        }
        Ok(answers)
    }
}

/// Largest relative error over the rows of two tables of logits: the largest difference in a row over the largest
/// reference logit in it.
pub fn relative_error(ours: &[f32], reference: &[f32], vocab: usize) -> f32 {
    assert_eq!(ours.len(), reference.len());
    let row_error = |(ours, reference): (&[f32], &[f32])| {
        let largest = reference.iter().fold(0f32, |m, x| m.max(x.abs()));
        let difference = ours.iter().zip(reference).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        difference / largest
    };
    ours.chunks_exact(vocab).zip(reference.chunks_exact(vocab)).map(row_error).fold(0.0, f32::max)
}

/// The folders in `dir`, sorted; none when there is no `dir`.
pub fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    let mut folders: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

/// Last part of a path.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

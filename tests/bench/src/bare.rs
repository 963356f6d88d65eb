//! The bare step: the worker's session driven directly, with nothing around it.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use slm_convert::{bundle::Bundle, peft::Adapter};
use slm_tests::sequence::{Sequence, step};
use slm_worker::{
    adapters::{AdapterInfo, AdapterLease, Adapters},
    model::available_threads,
    runtime::{AdapterRoom, Backend, LogitsRequest, Opened, Provider, Runtime, SessionConfig, TOKENS_MAX},
    sample::argmax,
};

use crate::{ANSWER, LONG_PROMPT, Mix, RANK, STREAMS, adapters};

/// Positions of each sequence.
const CONTEXT: usize = LONG_PROMPT * 2;

pub(crate) struct Bare {
    backend: Box<dyn Backend>,
    leases: Vec<Arc<AdapterLease>>,
    prompt: Vec<u32>,
}

impl Bare {
    /// Opens the model and makes the adapters in `dir`, which the swarm uses too.
    pub(crate) fn open(dir: &Path, bundle: &Bundle) -> Result<Self> {
        let config = &bundle.info.architecture;
        let registry = Adapters::new(STREAMS, 0, 0);
        let pages = Provider::Cpu.pages_for(STREAMS, CONTEXT);
        let threads = available_threads();
        let session = SessionConfig { context_length: CONTEXT, pages, sequences: STREAMS, logits: TOKENS_MAX, threads };
        let room = AdapterRoom { slots: STREAMS, rank_max: RANK };
        let Opened { backend, loader, .. } =
            Provider::Cpu.open(&Runtime::load()?, bundle, session, room, registry.table())?;
        let mut leases = Vec::new();
        for i in 0..STREAMS {
            let path = dir.join(format!("adapter-{i}"));
            adapters::write(&path, config, RANK, i as u64)?;
            let adapter = Adapter::open(&path, config)?;
            let loaded = loader.load(&adapter, 1.0)?;
            let info = AdapterInfo::new(&format!("adapter-{i}"), &loaded, 1.0, std::time::Duration::ZERO);
            leases.push(registry.publish(info, loaded)?);
        }
        Ok(Self { backend, leases, prompt: prompt(bundle)? })
    }

    /// Some `count` tokens of English text.
    pub(crate) fn prompt(&self, count: usize) -> Vec<u32> {
        self.prompt[..count].to_vec()
    }

    /// Decoded tokens a second of `streams` sequences together.
    pub(crate) fn decode(&mut self, streams: usize, mix: Mix, prompt: &[u32]) -> Result<f64> {
        let (geometry, mut sequences) = (self.backend.geometry(), Vec::new());
        for index in 0..streams {
            let mut sequence =
                [Sequence::new(&geometry, index, CONTEXT, mix.adapter(index).map(|i| self.leases[i].slot()))];
            sequence[0].push(prompt);
            self.advance(&mut sequence)?;
            sequences.extend(sequence);
        }
        let begun = Instant::now();
        for _ in 1..ANSWER {
            self.advance(&mut sequences)?;
        }
        Ok((streams * (ANSWER - 1)) as f64 / begun.elapsed().as_secs_f64())
    }

    /// Seconds from a prompt to its first token.
    pub(crate) fn first_token(&mut self, prompt: &[u32]) -> Result<f64> {
        let mut sequence = [Sequence::new(&self.backend.geometry(), 0, CONTEXT, None)];
        sequence[0].push(prompt);
        let begun = Instant::now();
        self.advance(&mut sequence)?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// A step of all, and the likeliest next token of each.
    fn advance(&mut self, sequences: &mut [Sequence]) -> Result<()> {
        let vocab = self.backend.geometry().vocab_size;
        let logits = step(&mut *self.backend, sequences, LogitsRequest::Last)?;
        for (sequence, logits) in sequences.iter_mut().zip(logits.chunks_exact(vocab)) {
            sequence.push(&[argmax(logits).context("no largest logit")?.0]);
        }
        Ok(())
    }
}

fn prompt(bundle: &Bundle) -> Result<Vec<u32>> {
    let tokenizer = bundle.tokenizer()?.context("no tokenizer")?;
    let text = include_str!("../../../LICENSE");
    let encoding = tokenizer.encode_fast(text, false).map_err(anyhow::Error::msg)?;
    Ok(encoding.get_ids().to_vec())
}

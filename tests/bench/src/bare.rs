//! The bare step: the worker's session driven directly, with nothing around it.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use slm_convert::{bundle::Bundle, graph::Precision, pack::pack, peft::Adapter};
use slm_tests::real;
use slm_worker::{
    adapters::{AdapterInfo, AdapterLease, Adapters},
    model::available_threads,
    runtime::{DecodeRow, DecoderSession, Runtime, SessionConfig},
    sample::argmax,
};

use crate::{ANSWER, LONG_PROMPT, Mix, RANK, STREAMS, adapters};

pub(crate) struct Bare {
    session: DecoderSession,
    leases: Vec<Arc<AdapterLease>>,
    bundle: Bundle,
}

impl Bare {
    /// Opens the model and makes the adapters in `dir`, which the swarm uses too.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let bundle = real::bundle(Precision::Int4)?;
        let config = &bundle.info.config;
        let registry = Adapters::new(STREAMS, 0);
        let mut leases = Vec::new();
        for i in 0..STREAMS {
            let path = dir.join(format!("adapter-{i}"));
            adapters::write(&path, config, RANK, i as u64)?;
            let adapter = Adapter::open(&path, config)?;
            let info = AdapterInfo::new(&format!("adapter-{i}"), &adapter, 1.0, std::time::Duration::ZERO);
            leases.push(registry.publish(info, pack(&adapter, config, Precision::Int4, 1.0)?)?);
        }
        let config =
            SessionConfig { sequences_max: STREAMS, context_length: LONG_PROMPT * 2, threads: available_threads() };
        let session = DecoderSession::open(&Runtime::load()?, &bundle, config, registry.table())?;
        Ok(Self { session, leases, bundle })
    }

    /// Some `count` tokens of English text.
    pub(crate) fn prompt(&self, count: usize) -> Result<Vec<u32>> {
        let tokenizer = self.bundle.tokenizer()?.context("no tokenizer")?;
        let text = include_str!("../../../LICENSE");
        let encoding = tokenizer.encode_fast(text, false).map_err(anyhow::Error::msg)?;
        Ok(encoding.get_ids()[..count].to_vec())
    }

    /// Decoded tokens a second of `streams` sequences together.
    pub(crate) fn decode(&mut self, streams: usize, mix: Mix, prompt: &[u32]) -> Result<f64> {
        let vocab = self.session.vocab_size();
        let mut rows = Vec::new();
        for slot in 0..streams {
            let adapter = mix.adapter(slot).map(|i| self.leases[i].slot());
            let (token, _) = argmax(self.session.prefill(slot, 0, prompt, adapter)?).context("no largest logit")?;
            rows.push(DecodeRow { token, past: prompt.len(), adapter });
        }
        let begun = Instant::now();
        for _ in 1..ANSWER {
            let logits = self.session.decode(&rows)?;
            for (row, logits) in rows.iter_mut().zip(logits.chunks_exact(vocab)) {
                row.token = argmax(logits).context("no largest logit")?.0;
                row.past += 1;
            }
        }
        Ok((streams * (ANSWER - 1)) as f64 / begun.elapsed().as_secs_f64())
    }

    /// Seconds from a prompt to its first token.
    pub(crate) fn first_token(&mut self, prompt: &[u32]) -> Result<f64> {
        let begun = Instant::now();
        argmax(self.session.prefill(0, 0, prompt, None)?).context("no largest logit")?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

//! What a self-check computes.

use std::sync::Arc;

use slm_convert::{architecture::Architecture, peft::Adapter};

use super::SelfCheckError;
use crate::{
    adapters::AdapterTable,
    runtime::{
        backend::{Backend, Chunk, LogitsRequest, SessionConfig},
        provider::{AdapterLoader, AdapterRoom},
    },
};

/// Tokens of the prompt.
const PROMPT: usize = 8;
/// Tokens after the prompt, each in a step of its own: so many that a device that captures such steps replays some.
const GENERATED: usize = 5;
/// Page tables of the sequences: one page for each.
const PAGES: [&[u32]; 2] = [&[0], &[1]];
/// Rank of the synthetic adapter, where the model takes as much.
const RANK: usize = 4;

/// Who answered, and which token of the answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) case: &'static str,
    pub(super) token: usize,
}

/// A prompt, its next tokens, and an adapter.
pub(super) struct Golden {
    prompt: Vec<u32>,
    generated: Vec<u32>,
    /// Cases: the base, and the adapter where there is room for one.
    adapter: Option<Adapter>,
    vocab: usize,
    context_length: usize,
}

impl Golden {
    /// For this model, with this context and room for such adapters.
    pub(super) fn new(architecture: &Architecture, context_length: usize, room: AdapterRoom) -> Self {
        let vocab = architecture.vocab_size.max(1);
        // Spread over the vocabulary.
        let mut tokens = (1..).map(|index: usize| (index.wrapping_mul(7919) % vocab) as u32);
        let prompt: Vec<u32> = tokens.by_ref().take(PROMPT.min(context_length)).collect();
        let generated = tokens.take(GENERATED.min(context_length - prompt.len())).collect();
        let rank = RANK.min(room.rank_max);
        let adapter = (room.slots > 0 && rank > 0).then(|| Adapter::synthetic(architecture, rank));
        Self { prompt, generated, adapter, vocab, context_length }
    }

    /// Sizes of a session that is opened for this alone, beside one with this configuration. The context is the same, because
    /// some rotary embeddings depend on it.
    pub(super) fn session(served: SessionConfig) -> SessionConfig {
        SessionConfig { pages: 2, sequences: 2, logits: 2, ..served }
    }

    /// Room for its adapter.
    pub(super) fn room(&self) -> AdapterRoom {
        AdapterRoom { slots: 1, rank_max: self.rank() }
    }

    /// Rank of the adapter; 0 without one.
    pub(super) fn rank(&self) -> usize {
        self.adapter.as_ref().map_or(0, |adapter| adapter.rank_max)
    }

    /// Positions of the context that is served.
    pub(super) fn context_length(&self) -> usize {
        self.context_length
    }

    /// Number of logits of all rows.
    pub(super) fn values(&self) -> usize {
        self.cases() * (1 + self.generated.len()) * self.vocab
    }

    fn cases(&self) -> usize {
        1 + usize::from(self.adapter.is_some())
    }

    /// Rows of two tables of logits, with what they are of.
    pub(super) fn rows<'a>(
        &self,
        expected: &'a [f32],
        found: &'a [f32],
    ) -> impl Iterator<Item = (Row, &'a [f32], &'a [f32])> {
        let cases = self.cases();
        let rows = expected.chunks_exact(self.vocab).zip(found.chunks_exact(self.vocab)).enumerate();
        rows.map(move |(index, (expected, found))| {
            let case = ["the base", "the synthetic adapter"][index % cases];
            (Row { case, token: index / cases }, expected, found)
        })
    }

    /// The logits after the prompt and after each generated token: of the base, then of the adapter. Both in one step, where the
    /// session has room for two sequences.
    pub(super) fn logits(
        &self,
        backend: &mut dyn Backend,
        loader: &AdapterLoader,
        table: &AdapterTable,
    ) -> Result<Vec<f32>, SelfCheckError> {
        let adapters: &[Option<usize>] = match &self.adapter {
            None => &[None],
            Some(adapter) => {
                table.set(0, Some(Arc::new(loader.load(adapter, 1.0)?)));
                &[None, Some(0)]
            }
        };
        let logits = self.steps(backend, adapters);
        table.set(0, None);
        logits
    }

    fn steps(&self, backend: &mut dyn Backend, adapters: &[Option<usize>]) -> Result<Vec<f32>, SelfCheckError> {
        let geometry = backend.geometry();
        let together = geometry.pages.min(geometry.logits) >= adapters.len();
        let mut logits = vec![0.0; self.values()];
        let batch = if together { adapters.len() } else { 1 };
        for (first, adapters) in (0..).step_by(batch).zip(adapters.chunks(batch)) {
            let prompt = (0, &self.prompt[..]);
            let generated =
                self.generated.chunks(1).enumerate().map(|(index, token)| (self.prompt.len() + index, token));
            for (token, (past, tokens)) in std::iter::once(prompt).chain(generated).enumerate() {
                let chunk = |(page, &adapter)| Chunk {
                    tokens,
                    past,
                    pages: PAGES[page],
                    state: None,
                    adapter,
                    logits: LogitsRequest::Last,
                    candidates: None,
                };
                let chunks: Vec<Chunk<'_>> = adapters.iter().enumerate().map(chunk).collect();
                let rows = backend.step(&chunks)?;
                let place = (token * self.cases() + first) * self.vocab;
                for (row, values) in logits[place..].chunks_exact_mut(self.vocab).take(rows).enumerate() {
                    values.copy_from_slice(backend.row(row)?);
                }
            }
        }
        Ok(logits)
    }
}

//! Metadata of a forward pass beside the graph's inputs: written by the session before the run, read by the operators.

use std::sync::Arc;

use slm_convert::rope::RotaryTables;
use slm_kernels::{
    Activations,
    attention::{PAGE, Pages, Plan, Sequence, Shape},
    experts,
};

use super::{adapter_batch::AdapterBatch, memory::KvMemory, states::StateMemory};
use crate::{
    adapters::AdapterTable,
    runtime::backend::{Chunk, ChunkError},
};

/// Metadata and scratch memory of a forward pass.
pub(super) struct ForwardPass {
    /// Tokens of the pass.
    pub(super) tokens: usize,
    /// One plan for each head shape of the model's layers.
    plans: Vec<Plan>,
    kv: KvMemory,
    pub(super) states: StateMemory,
    /// Tables of the model's rotary embeddings, for the served context.
    pub(super) ropes: Vec<RotaryTables>,
    pub(super) adapters: AdapterBatch,
    table: Arc<AdapterTable>,
    /// For each page, the chunk that writes it, plus one.
    writers: Vec<u32>,
    // Scratch memory shared by all nodes, which run sequentially; one copy for each would be most of a model's size.
    pub(super) activations: Activations,
    pub(super) scratch: Vec<f32>,
    queries: Vec<f32>,
    pub(super) experts: experts::Buffers,
}

/// Parts of a pass for the attention of one layer.
pub(super) struct Attended<'a> {
    /// The plan for the layer's heads.
    pub(super) plan: &'a Plan,
    /// The layer's pages, or those of the layer whose keys and values it takes.
    pub(super) pages: Pages<'a>,
    /// As [`ForwardPass::ropes`].
    pub(super) ropes: &'a [RotaryTables],
    /// Scratch memory for queries.
    pub(super) queries: &'a mut Vec<f32>,
}

impl ForwardPass {
    /// A pass over layers with heads of these shapes.
    pub(super) fn new(
        shapes: &[Shape],
        (kv, states): (KvMemory, StateMemory),
        ropes: Vec<RotaryTables>,
        table: Arc<AdapterTable>,
    ) -> Self {
        let mut plans: Vec<Plan> = Vec::new();
        for shape in shapes {
            if plans.iter().all(|plan| plan.shape() != shape) {
                plans.push(Plan::new(*shape));
            }
        }
        Self {
            tokens: 0,
            plans,
            writers: vec![0; kv.pages()],
            kv,
            states,
            ropes,
            adapters: AdapterBatch::default(),
            table,
            activations: Activations::default(),
            scratch: Vec::new(),
            queries: Vec::new(),
            experts: experts::Buffers::default(),
        }
    }

    /// The same, with tokens that see all tokens of their text.
    pub(super) fn bidirectional(mut self) -> Self {
        self.plans.iter_mut().for_each(|plan| *plan = Plan::bidirectional(*plan.shape()));
        self
    }

    /// Prepares a pass over `chunks` on `threads` threads.
    pub(super) fn prepare(&mut self, chunks: &[Chunk<'_>], threads: usize) -> Result<(), ChunkError> {
        self.check(chunks)?;
        self.states.prepare(chunks)?;
        let sequences: Vec<_> = chunks
            .iter()
            .map(|chunk| Sequence { pages: chunk.pages, begin: chunk.past, tokens: chunk.tokens.len() })
            .collect();
        self.tokens = sequences.iter().map(|sequence| sequence.tokens).sum();
        self.plans.iter_mut().for_each(|plan| plan.update(&sequences, threads));
        self.adapters.gather(&self.table, chunks.iter().map(|chunk| (chunk.adapter, chunk.tokens.len())));
        Ok(())
    }

    /// Index of the plan for so many heads, heads of keys, and floats of a head, for [`ForwardPass::attention`].
    pub(super) fn plan(&self, heads: [usize; 3]) -> Option<usize> {
        let of = |shape: &Shape| [shape.heads(), shape.kv_heads(), shape.head_dim()];
        self.plans.iter().position(|plan| of(plan.shape()) == heads)
    }

    /// What attention with plan `plan` over the pages of `layer` needs.
    pub(super) fn attention(&mut self, plan: usize, layer: usize) -> Option<Attended<'_>> {
        let (plan, pages) = (self.plans.get(plan)?, self.kv.layer(layer)?);
        Some(Attended { plan, pages, ropes: &self.ropes, queries: &mut self.queries })
    }

    /// Checks what kernels rely on when they write pages from several threads.
    fn check(&mut self, chunks: &[Chunk<'_>]) -> Result<(), ChunkError> {
        let written = |chunk: &Chunk<'_>| chunk.past / PAGE..(chunk.past + chunk.tokens.len()).div_ceil(PAGE);
        for (index, chunk) in chunks.iter().enumerate() {
            let wrong = |wrong| Err(ChunkError::new(index, wrong));
            if chunk.tokens.is_empty() {
                return wrong("has no tokens");
            }
            if written(chunk).end > chunk.pages.len() {
                return wrong("has too few pages");
            }
            if chunk.pages.iter().any(|&page| page as usize >= self.writers.len()) {
                return wrong("names a page that is not there");
            }
        }
        self.writers.fill(0);
        for (index, chunk) in chunks.iter().enumerate() {
            for &page in &chunk.pages[written(chunk)] {
                if self.writers[page as usize] != 0 {
                    return Err(ChunkError::new(index, "writes to a page that another writes to"));
                }
                self.writers[page as usize] = index as u32 + 1;
            }
        }
        for (index, chunk) in chunks.iter().enumerate() {
            let others = |page: &u32| ![0, index as u32 + 1].contains(&self.writers[*page as usize]);
            if chunk.pages[..written(chunk).start].iter().any(others) {
                return Err(ChunkError::new(index, "reads a page that another writes to"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use slm_convert::graph::Precision;

    use super::*;
    use crate::runtime::LogitsRequest;

    fn refusal(chunks: &[(usize, usize, &[u32])]) -> Option<String> {
        let shape = Shape::new(2, 1, 16);
        let kv = KvMemory::new(&[Some(shape)], 4, Precision::F32);
        let mut step =
            ForwardPass::new(&[shape], (kv, StateMemory::new(&[0], 0)), Vec::new(), AdapterTable::new(0).into());
        let tokens = [0; 2 * PAGE];
        let chunks: Vec<_> = chunks
            .iter()
            .map(|&(past, count, pages)| Chunk {
                tokens: &tokens[..count],
                past,
                pages,
                state: None,
                adapter: None,
                logits: LogitsRequest::Last,
                candidates: None,
            })
            .collect();
        step.prepare(&chunks, 1).err().map(|error| error.to_string())
    }

    #[test]
    fn pages_that_two_chunks_would_fight_for_are_refused() {
        assert_eq!(refusal(&[(PAGE, 1, &[0, 1]), (PAGE, 1, &[0, 2])]), None, "a common prefix");
        assert_eq!(refusal(&[(PAGE - 1, 2, &[3, 1])]), None, "into the next page");
        for (chunks, wrong) in [
            (&[(0, 0, &[0][..])][..], "chunk 0 of the step has no tokens"),
            (&[(PAGE - 1, 2, &[0])], "chunk 0 of the step has too few pages"),
            (&[(0, 1, &[4])], "chunk 0 of the step names a page that is not there"),
            (&[(0, 1, &[1]), (0, 1, &[1])], "chunk 1 of the step writes to a page that another writes to"),
            (&[(PAGE, 1, &[0, 1]), (0, 1, &[0])], "chunk 0 of the step reads a page that another writes to"),
        ] {
            assert_eq!(refusal(chunks).as_deref(), Some(wrong));
        }
    }
}

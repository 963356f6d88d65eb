//! What a step consists of besides its graph's inputs: written by the session before it runs the graph, read by the
//! operators in it.

use std::sync::Arc;

use slm_kernels::{
    Activations,
    attention::{PAGE, Plan, Sequence},
};

use super::{memory::KvMemory, sharing::Sharing};
use crate::adapters::AdapterTable;

/// New tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// At least one.
    pub tokens: &'a [u32],
    /// How many tokens of the sequence came before: their keys and values are in its pages.
    pub past: usize,
    /// The pages of its positions `0..PAGE`, `PAGE..2 * PAGE` and so on. Several chunks may name a page, but none that
    /// one of them writes to.
    pub pages: &'a [u32],
    /// Slot of its adapter in the table.
    pub adapter: Option<usize>,
    /// After which of its tokens.
    pub logits: Wanted,
}

/// Which tokens of a chunk get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// None: the chunk ends within a prompt.
    Nothing,
    /// The last.
    Last,
    /// Every one.
    All,
}

impl Wanted {
    /// How many of so many.
    pub fn count(self, tokens: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Last => 1,
            Self::All => tokens,
        }
    }
}

/// A chunk that cannot be part of the step: whoever keeps the pages made a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk {chunk} of the step {wrong}")]
pub struct ChunkError {
    /// Its index.
    pub chunk: usize,
    wrong: &'static str,
}

/// What operators find beside the graph.
pub(super) struct Step {
    pub(super) plan: Plan,
    pub(super) kv: KvMemory,
    pub(super) sharing: Sharing,
    table: Arc<AdapterTable>,
    /// Of each page, the chunk of this step that writes to it, plus one.
    writers: Vec<u32>,
    // Memory of the node that runs: they run one after the other, and a copy for each would be most of a model.
    pub(super) activations: Activations,
    pub(super) scratch: Vec<f32>,
    pub(super) queries: Vec<f32>,
}

impl Step {
    pub(super) fn new(kv: KvMemory, table: Arc<AdapterTable>) -> Self {
        Self {
            plan: Plan::new(*kv.shape()),
            writers: vec![0; kv.pages()],
            kv,
            sharing: Sharing::default(),
            table,
            activations: Activations::default(),
            scratch: Vec::new(),
            queries: Vec::new(),
        }
    }

    /// Makes the next step one of `chunks`, to run on so many threads.
    pub(super) fn prepare(&mut self, chunks: &[Chunk<'_>], threads: usize) -> Result<(), ChunkError> {
        self.check(chunks)?;
        let sequences: Vec<_> = chunks
            .iter()
            .map(|chunk| Sequence { pages: chunk.pages, begin: chunk.past, tokens: chunk.tokens.len() })
            .collect();
        self.plan.update(&sequences, threads);
        self.sharing.gather(&self.table, chunks.iter().map(|chunk| (chunk.adapter, chunk.tokens.len())));
        Ok(())
    }

    /// Kernels write to pages from several threads: what they take on trust is seen to here.
    fn check(&mut self, chunks: &[Chunk<'_>]) -> Result<(), ChunkError> {
        let written = |chunk: &Chunk<'_>| chunk.past / PAGE..(chunk.past + chunk.tokens.len()).div_ceil(PAGE);
        for (index, chunk) in chunks.iter().enumerate() {
            let wrong = |wrong| Err(ChunkError { chunk: index, wrong });
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
                    return Err(ChunkError { chunk: index, wrong: "writes to a page that another writes to" });
                }
                self.writers[page as usize] = index as u32 + 1;
            }
        }
        for (index, chunk) in chunks.iter().enumerate() {
            let others = |page: &u32| ![0, index as u32 + 1].contains(&self.writers[*page as usize]);
            if chunk.pages[..written(chunk).start].iter().any(others) {
                return Err(ChunkError { chunk: index, wrong: "reads a page that another writes to" });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use slm_convert::graph::Precision;
    use slm_kernels::attention::Shape;

    use super::*;

    fn refusal(chunks: &[(usize, usize, &[u32])]) -> Option<String> {
        let kv = KvMemory::new(Shape::new(2, 1, 16), 4, 1, Precision::F32);
        let mut step = Step::new(kv, AdapterTable::new(0).into());
        let tokens = [0; 2 * PAGE];
        let chunks: Vec<_> = chunks
            .iter()
            .map(|&(past, count, pages)| Chunk {
                tokens: &tokens[..count],
                past,
                pages,
                adapter: None,
                logits: Wanted::Last,
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

//! Rows of a forward pass by adapter, and the first LoRA product (`x A`, "shrink" in vLLM).
#![allow(unsafe_code)] // Several threads write to rows; the blocks say who writes where.

use std::{ops::Range, sync::Arc};

use slm_convert::architecture::Projection;
use slm_kernels::{
    Level, Rows,
    lora::{self, AdapterRows, Inputs},
};

use crate::adapters::{AdapterTable, LoadedAdapter};

/// Bound on the tokens of a task when there are several: a multiple of the kernels' panels.
const TASK_TOKENS: usize = 48;
/// Projections ahead whose matrices are prefetched: as many as from the last one of an ordinary layer to the first of the
/// next, between which few layers have any.
const LOOK_AHEAD: usize = Projection::ALL.len() - Projection::Down as usize;

/// Rows of a forward pass by adapter. Buffers are reused.
#[derive(Default)]
pub(super) struct AdapterBatch {
    adapters: Vec<(Arc<LoadedAdapter>, Range<usize>)>,
    tokens: Vec<u32>,
    hidden: Vec<f32>,
}

impl AdapterBatch {
    /// Collects the adapters of a pass's chunks from `table`, given each chunk's slot and number of tokens.
    pub(super) fn gather(
        &mut self,
        table: &AdapterTable,
        chunks: impl Iterator<Item = (Option<usize>, usize)> + Clone,
    ) {
        self.release();
        for (index, (slot, _)) in chunks.clone().enumerate() {
            // Each slot is collected once, at its first chunk.
            let Some(slot) = slot else { continue };
            if chunks.clone().take(index).any(|(other, _)| other == Some(slot)) {
                continue;
            }
            let Some(adapter) = table.get(slot) else { continue };
            let begin = self.tokens.len();
            let mut first = 0;
            for (other, tokens) in chunks.clone() {
                if other == Some(slot) {
                    self.tokens.extend(first..first + tokens as u32);
                }
                first += tokens as u32;
            }
            self.adapters.push((adapter, begin..self.tokens.len()));
        }
    }

    /// The first product of fused projection `projection` for `rows` rows; `None` if no row's adapter changes it.
    pub(super) fn shrink(&mut self, projection: usize, rows: usize) -> Option<LoraShrink<'_>> {
        let Self { adapters, tokens, hidden } = self;
        let rows_of = |projection: usize| -> Vec<AdapterRows<'_>> {
            let adapter_rows =
                adapters.iter().map(|(adapter, range)| (adapter.projection(projection), &tokens[range.clone()]));
            adapter_rows.filter_map(|(adapter, tokens)| Some(AdapterRows { adapter: adapter?, tokens })).collect()
        };
        let adapter_rows = rows_of(projection);
        let rank_max = adapter_rows.iter().map(|rows| rows.adapter.rank()).max()?;
        hidden.resize(rows * rank_max, 0.0);
        let next = (1..=LOOK_AHEAD).map(|ahead| rows_of(projection + ahead)).find(|rows| !rows.is_empty());
        Some(LoraShrink { adapter_rows, hidden: Rows::new(hidden, rank_max), next: next.unwrap_or_default() })
    }

    /// Drops the adapters: a replaced one is freed as soon as no request uses it.
    pub(super) fn release(&mut self) {
        self.adapters.clear();
        self.tokens.clear();
    }
}

/// Adapters of a node, and the buffer of their first products (`x A`).
pub(super) struct LoraShrink<'a> {
    pub(super) adapter_rows: Vec<AdapterRows<'a>>,
    pub(super) hidden: Rows<'a>,
    /// Rows of the fused projection that comes next, to prefetch.
    pub(super) next: Vec<AdapterRows<'a>>,
}

impl LoraShrink<'_> {
    /// Number of tasks: one for each adapter's rows, more if there are many rows.
    pub(super) fn tasks(&self) -> usize {
        self.adapter_rows.iter().map(pieces).sum()
    }

    /// Computes task `task` of the first products of `x`.
    ///
    /// # Safety
    /// Each task runs once, and no thread reads the hidden rows meanwhile.
    pub(super) unsafe fn run(&self, level: Level, task: usize, x: Inputs<'_>) {
        let mut piece = task;
        for rows in &self.adapter_rows {
            let pieces = pieces(rows);
            if piece < pieces {
                let begin = piece * TASK_TOKENS;
                let rows = rows.some(begin..rows.tokens.len().min(begin + TASK_TOKENS));
                // SAFETY: ranges of rows do not overlap, and no row has two adapters.
                return unsafe { lora::hidden(level, &rows, x, self.hidden) };
            }
            piece -= pieces;
        }
    }
}

fn pieces(rows: &AdapterRows<'_>) -> usize {
    rows.tokens.len().div_ceil(TASK_TOKENS)
}

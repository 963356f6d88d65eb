//! Which tokens of a step share which adapter, and the first half of what the adapters make of them.
#![allow(unsafe_code)] // Several threads write to rows; the blocks say who writes where.

use std::{ops::Range, sync::Arc};

use slm_convert::pack::PackedAdapter;
use slm_kernels::{
    Level, Rows,
    lora::{self, Inputs, Share},
};

use crate::adapters::AdapterTable;

/// Tokens of a task at most, where there are more than one thread has to do: a whole number of the kernels' panels.
const TASK_TOKENS: usize = 48;

/// The tokens of a step by adapter. Memory is kept from step to step.
#[derive(Default)]
pub(super) struct Sharing {
    adapters: Vec<(Arc<PackedAdapter>, Range<usize>)>,
    tokens: Vec<u32>,
    hidden: Vec<f32>,
}

impl Sharing {
    /// Looks up in `table` the adapters of a step's chunks: the slot of each and how many tokens it has.
    pub(super) fn gather(
        &mut self,
        table: &AdapterTable,
        chunks: impl Iterator<Item = (Option<usize>, usize)> + Clone,
    ) {
        self.release();
        for (index, (slot, _)) in chunks.clone().enumerate() {
            // A slot is looked at once, at its first chunk.
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

    /// What group `group` needs of the step's adapters to be applied to so many rows; nothing when no token has
    /// one that changes the group.
    pub(super) fn halfway(&mut self, group: usize, rows: usize) -> Option<Halfway<'_>> {
        let Self { adapters, tokens, hidden } = self;
        let shares_of = |group: usize| -> Vec<Share<'_>> {
            let shares = adapters.iter().map(|(adapter, range)| (adapter.group(group), &tokens[range.clone()]));
            shares.filter_map(|(adapter, tokens)| Some(Share { adapter: adapter?, tokens })).collect()
        };
        let shares = shares_of(group);
        let rank_max = shares.iter().map(|share| share.adapter.rank()).max()?;
        hidden.resize(rows * rank_max, 0.0);
        Some(Halfway { shares, hidden: Rows::new(hidden, rank_max), next: shares_of(group + 1) })
    }

    /// Lets go of the adapters: one that was replaced is freed as soon as nobody runs with it.
    pub(super) fn release(&mut self) {
        self.adapters.clear();
        self.tokens.clear();
    }
}

/// The adapters of a node, and where the first halves of what they make go.
pub(super) struct Halfway<'a> {
    pub(super) shares: Vec<Share<'a>>,
    pub(super) hidden: Rows<'a>,
    /// The shares of the group that comes next.
    pub(super) next: Vec<Share<'a>>,
}

impl Halfway<'_> {
    /// Tasks that the first halves are: a share each, or some tokens of one that has many.
    pub(super) fn tasks(&self) -> usize {
        self.shares.iter().map(pieces).sum()
    }

    /// Computes first halves out of `x`.
    ///
    /// # Safety
    /// Each task is run once, while nobody reads the hidden rows.
    pub(super) unsafe fn first(&self, level: Level, task: usize, x: Inputs<'_>) {
        let mut piece = task;
        for share in &self.shares {
            let pieces = pieces(share);
            if piece < pieces {
                let begin = piece * TASK_TOKENS;
                let share = share.some(begin..share.tokens.len().min(begin + TASK_TOKENS));
                // SAFETY: pieces of tokens do not overlap, and no token is in two shares.
                return unsafe { lora::hidden(level, &share, x, self.hidden) };
            }
            piece -= pieces;
        }
    }
}

fn pieces(share: &Share<'_>) -> usize {
    share.tokens.len().div_ceil(TASK_TOKENS)
}

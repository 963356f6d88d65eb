//! Which tokens of a step share which adapter, and the first half of what the adapters make of them.
#![allow(unsafe_code)] // Several threads write to rows; the blocks say who writes where.

use std::{ops::Range, sync::Arc};

use slm_convert::pack::PackedAdapter;
use slm_kernels::{
    Level, Rows,
    lora::{self, Share},
};

use crate::adapters::AdapterTable;

/// Shares for each thread, so that threads end at about the same time.
const TASKS_PER_THREAD: usize = 2;
/// Ranks that the kernel takes at once.
const RANK_GRAIN: usize = 4;

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
            let adapters = adapters.iter().map(|(adapter, range)| (adapter.groups.get(group), &tokens[range.clone()]));
            adapters.filter_map(|(group, tokens)| Some(Share { adapter: group?.as_ref()?.adapter(), tokens })).collect()
        };
        let shares = shares_of(group);
        let rank_max = shares.iter().map(|share| share.adapter.rank).max()?;
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
    /// Tasks that the first halves are for so many threads: a share each, or pieces of one if there are few.
    pub(super) fn tasks(&self, threads: usize) -> usize {
        self.shares.len() * self.pieces(threads)
    }

    fn pieces(&self, threads: usize) -> usize {
        if self.shares.len() < TASKS_PER_THREAD * threads { threads } else { 1 }
    }

    /// Computes first halves out of `x`.
    ///
    /// # Safety
    /// Each task is run once, while nobody reads the hidden rows.
    pub(super) unsafe fn first(&self, level: Level, task: usize, threads: usize, x: &[f32]) {
        let pieces = self.pieces(threads);
        let share = &self.shares[task / pieces];
        let rank = share.adapter.rank;
        let ranks = cut(rank, task % pieces, pieces)..cut(rank, task % pieces + 1, pieces);
        // SAFETY: pieces of ranks do not overlap, and no token is in two shares.
        unsafe { lora::hidden(level, share, ranks, x, self.hidden) };
    }
}

/// Where part `part` of `parts` of so many ranks begins.
fn cut(rank: usize, part: usize, parts: usize) -> usize {
    (rank.div_ceil(RANK_GRAIN) * part / parts * RANK_GRAIN).min(rank)
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn parts_cover_every_rank_once() {
        for (rank, parts) in [(0, 2), (3, 2), (48, 2), (50, 3), (961, 7)] {
            assert_eq!((cut(rank, 0, parts), cut(rank, parts, parts)), (0, rank));
            assert!((0..parts).all(|part| cut(rank, part, parts) <= cut(rank, part + 1, parts)));
        }
    }
}

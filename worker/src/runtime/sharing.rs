//! Which tokens of a step share which adapter, and the first half of what the adapters make of them.
#![allow(unsafe_code)] // Several threads write to rows; the blocks say who writes where.

use std::{ops::Range, sync::Arc};

use ort::operator::ComputeContext;
use slm_convert::pack::PackedAdapter;
use slm_kernels::{
    Level, Rows,
    lora::{self, Share},
};

use crate::adapters::AdapterTable;

/// Below this many multiply-adds a second thread costs more than it helps.
const ALONE_MAX: usize = 20_000;
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

    /// Computes the first halves for group `group` of the step's tokens out of `x`, and gives what the second halves
    /// need; nothing when no token has an adapter that changes the group.
    pub(super) fn halfway(
        &mut self,
        context: &ComputeContext,
        level: Level,
        threads: usize,
        group: usize,
        x: &[f32],
    ) -> ort::Result<Option<Halfway<'_>>> {
        let Self { adapters, tokens, hidden } = self;
        let shares: Vec<Share<'_>> = adapters
            .iter()
            .filter_map(|(adapter, range)| {
                let adapter = adapter.groups.get(group)?.as_ref()?.adapter();
                Some(Share { adapter, tokens: &tokens[range.clone()] })
            })
            .collect();
        let Some(first) = shares.first() else { return Ok(None) };
        let rank_max = shares.iter().map(|share| share.adapter.rank).max().unwrap_or(0);
        hidden.resize(x.len() / first.adapter.inputs * rank_max, 0.0);
        let hidden = Rows::new(hidden, rank_max);
        let work: usize =
            shares.iter().map(|share| share.adapter.rank * share.tokens.len() * share.adapter.inputs).sum();
        let parts = if work <= ALONE_MAX { 1 } else { threads };
        let part = |part: usize| {
            for share in &shares {
                let ranks = cut(share.adapter.rank, part, parts)..cut(share.adapter.rank, part + 1, parts);
                // SAFETY: parts of ranks do not overlap, and no token is in two shares.
                unsafe { lora::hidden(level, share, ranks, x, hidden) };
            }
        };
        if parts == 1 {
            part(0)
        } else {
            context.par_for(parts, parts, part)?
        }
        Ok(Some(Halfway { shares, hidden }))
    }

    /// Lets go of the adapters: one that was replaced is freed as soon as nobody runs with it.
    pub(super) fn release(&mut self) {
        self.adapters.clear();
        self.tokens.clear();
    }
}

/// What the second halves are made of.
pub(super) struct Halfway<'a> {
    pub(super) shares: Vec<Share<'a>>,
    pub(super) hidden: Rows<'a>,
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

//! Folding of a row's partitions, in order (online softmax).
#![allow(unsafe_code)] // Addresses of rows and records; `Attention::attend` checks them.

use super::{HEAD_DIM_MAX, partition::Work};
use crate::{
    level::Level,
    rowwise::{at_level, exp},
};

/// Largest score, and the sum of the weights relative to it.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    max: f32,
    weights: f32,
}

/// Record of a row's partition: weighted values, largest score, sum of weights.
pub(super) const RECORD_MAX: usize = record(HEAD_DIM_MAX);

/// Length of a record in floats.
pub(super) const fn record(head_dim: usize) -> usize {
    head_dim + 2
}

impl Sum {
    /// The sum over no position.
    pub(super) const EMPTY: Self = Self { max: f32::MIN, weights: 0.0 };

    /// Folds `record` into `out`.
    #[inline(always)]
    pub(super) fn fold(&mut self, out: &mut [f32], record: &[f32]) {
        let (values, sum) = record.split_at(out.len());
        let (max, weights) = (sum[0], sum[1]);
        // No visible position in the partition: its values are zero and its largest score is meaningless.
        if weights == 0.0 {
            return;
        }
        let larger = if self.max > max { self.max } else { max };
        let (old, new) = (exp(self.max - larger), exp(max - larger));
        for (out, value) in out.iter_mut().zip(values) {
            *out = out.mul_add(old, value * new);
        }
        self.weights = self.weights.mul_add(old, weights * new);
        self.max = larger;
    }

    /// Divides by the weights. Adding zero makes every zero positive: otherwise its sign would depend on the number of
    /// zero weights that followed.
    #[inline(always)]
    pub(super) fn finish(&self, out: &mut [f32]) {
        let factor = 1.0 / self.weights;
        for out in out {
            *out = out.mul_add(factor, 0.0);
        }
    }
}

/// Folds the records of a split's items, and finishes their rows.
///
/// # Safety
/// `records` holds all partitions of the work's rows, whose outputs are this thread's.
pub(super) unsafe fn records(level: Level, work: &Work<'_>, records: *const f32) {
    at_level!(level, records_body(work: &Work<'_>, records: *const f32));
}

#[inline(always)]
fn records_body(work: &Work<'_>, records: *const f32) {
    let (dim, rows) = (work.shape.head_dim, work.rows.len());
    for (index, row) in work.rows.iter().enumerate() {
        // SAFETY: a head's floats of an output row, this thread's by the promise to `records`.
        let out = unsafe { std::slice::from_raw_parts_mut(row.out, dim) };
        out.fill(0.0);
        let mut sum = Sum::EMPTY;
        for partition in work.visible() {
            // SAFETY: one of the records that all items of the split wrote, by the promise to `records`.
            let record = unsafe {
                let begin = records.add((partition * rows + index) * record(dim));
                std::slice::from_raw_parts(begin, record(dim))
            };
            sum.fold(out, record);
        }
        sum.finish(out);
    }
}

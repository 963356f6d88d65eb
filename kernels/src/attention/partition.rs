//! Attention of a few rows over one partition of positions: scores, weights, weighted values.
//!
//! Both products are of one shape: sums of `R` rows by `C` vectors stay in registers while an inner dimension passes
//! by, the floats of a head for scores, positions for values. Rows are query heads of successive tokens, so that a
//! key or a value is loaded once for a group's heads and for several tokens.
#![allow(unsafe_code)] // Pointer arithmetic in the inner loops; `Attention::attend` checks the bounds.

use std::ops::Range;

use super::{
    PAGE, Shape,
    fold::{RECORD_MAX, Sum, record},
    pages::Head,
    plan::ROWS_MAX,
};
use crate::{
    level::Level,
    memory::fetch_line,
    rowwise::exp,
    simd::{Element, Simd, WIDTH, at_level},
};

/// Positions of a partition, whose scores share a maximum; part of the definition of an output.
pub const PARTITION: usize = 256;

/// Rows whose sums are kept in registers together.
pub(super) const ROWS: usize = 6;

/// A query head of a token.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) query: *const f32,
    pub(super) out: *mut f32,
    /// The visible positions: first, and one past the last.
    pub(super) first: usize,
    pub(super) end: usize,
    /// What is added to the score of each position, up to the last visible one; null for nothing.
    pub(super) bias: *const f32,
}

impl Row {
    pub(super) const NONE: Self =
        Self { query: std::ptr::null(), out: std::ptr::null_mut(), first: 0, end: 0, bias: std::ptr::null() };
}

/// Rows of one key head, and the partitions to compute for them.
pub(super) struct Work<'a> {
    pub(super) shape: Shape,
    pub(super) table: &'a [u32],
    pub(super) kv_head: usize,
    /// At least one, at most [`ROWS_MAX`], in the order of their positions.
    pub(super) rows: &'a [Row],
    pub(super) soft_cap: Option<f32>,
    pub(super) partitions: Range<usize>,
    /// Destination of each partition's records, `[partitions, rows]`, if other items compute the rest; else rows are
    /// finished.
    pub(super) records: Option<*mut f32>,
}

impl Work<'_> {
    /// Partitions in which a row has a visible position.
    pub(super) fn visible(&self) -> Range<usize> {
        let seen = seen(self.rows);
        seen.start / PARTITION..seen.end.div_ceil(PARTITION)
    }
}

/// Positions visible to any of the rows, a contiguous range.
#[inline(always)]
fn seen(rows: &[Row]) -> Range<usize> {
    rows.first().map_or(0, |row| row.first)..rows.last().map_or(0, |row| row.end)
}

/// # Safety
/// The table covers what the rows see, `memory` holds the pages that it names, and the CPU has the level. Queries and
/// outputs are heads of floats, outputs and records this thread's.
pub(super) unsafe fn attend_at<E: Element>(level: Level, memory: *mut E, work: &Work<'_>) {
    // SAFETY: passed on.
    unsafe { at_level!(level, attend_with::<E>, (memory: *mut E, work: &Work<'_>)) }
}

#[inline(always)]
unsafe fn attend_with<S: Simd, E: Element>(memory: *mut E, work: &Work<'_>) {
    let dim = work.shape.head_dim;
    let count = work.rows.len();
    let mut sums = [Sum::EMPTY; ROWS_MAX];
    let mut scores = [0.0; ROWS * PARTITION];
    let mut near = [0.0; ROWS * RECORD_MAX];
    // SAFETY: passed on; records of a partition follow each other by row.
    unsafe {
        let pages = Head::new(memory, &work.shape, work.kv_head, work.table);
        if work.records.is_none() {
            for row in work.rows {
                std::slice::from_raw_parts_mut(row.out, dim).fill(0.0);
            }
        }
        let visible = work.visible();
        for partition in work.partitions.start.max(visible.start)..work.partitions.end.min(visible.end) {
            let after = if partition + 1 < visible.end {
                pages.key((partition + 1) * PARTITION).cast_const()
            } else {
                pages.next_head(visible.start * PARTITION)
            };
            for first in (0..count).step_by(ROWS) {
                let rows = work.rows.get_unchecked(first..(first + ROWS).min(count));
                let records = match work.records {
                    Some(records) => records.add((partition * count + first) * record(dim)),
                    None => near.as_mut_ptr(),
                };
                let begin = partition * PARTITION;
                let part = Part { pages, dim, begin, soft_cap: work.soft_cap, rows, records, after };
                part.any::<S>(&mut scores);
                if work.records.is_none() {
                    for (i, row) in rows.iter().enumerate() {
                        let record = std::slice::from_raw_parts(near.as_ptr().add(i * record(dim)), record(dim));
                        let out = std::slice::from_raw_parts_mut(row.out, dim);
                        sums.get_unchecked_mut(first + i).fold(out, record);
                    }
                }
            }
        }
        if work.records.is_none() {
            for (row, sum) in work.rows.iter().zip(&sums) {
                sum.finish(std::slice::from_raw_parts_mut(row.out, dim));
            }
        }
    }
}

/// At most [`ROWS`] rows against the partition that begins at position `begin`.
#[derive(Clone, Copy)]
struct Part<'a, E> {
    pages: Head<'a, E>,
    dim: usize,
    begin: usize,
    soft_cap: Option<f32>,
    rows: &'a [Row],
    records: *mut f32,
    /// Address to prefetch: read next by these rows, or probably by this thread.
    after: *const E,
}

impl<E: Element> Part<'_, E> {
    #[inline(always)]
    unsafe fn any<S: Simd>(&self, scores: &mut [f32; ROWS * PARTITION]) {
        // SAFETY: passed on; there are as many rows as is said.
        unsafe {
            match self.rows.len() {
                1 => self.columns::<S, 1>(scores),
                2 => self.columns::<S, 2>(scores),
                3 => self.columns::<S, 3>(scores),
                4 => self.columns::<S, 4>(scores),
                5 => self.columns::<S, 5>(scores),
                _ => self.columns::<S, 6>(scores),
            }
        }
    }

    /// Two vectors at a time, if their sums, they and a factor fit the registers.
    #[inline(always)]
    unsafe fn columns<S: Simd, const R: usize>(&self, scores: &mut [f32; ROWS * PARTITION]) {
        // SAFETY: passed on.
        unsafe {
            if 2 * R + 2 < S::REGISTERS {
                self.rows::<S, R, 2>(scores);
            } else {
                self.rows::<S, R, 1>(scores);
            }
        }
    }

    /// `R` rows, `C` vectors at a time.
    #[inline(always)]
    unsafe fn rows<S: Simd, const R: usize, const C: usize>(&self, scores: &mut [f32; ROWS * PARTITION]) {
        // SAFETY: passed on. Vectors of positions that nobody sees yet lie in the pages of those seen, since a page is
        // whole vectors.
        unsafe {
            let seen = seen(self.rows);
            let here = |position: usize| position.clamp(self.begin, self.begin + PARTITION);
            let seen = here(seen.start)..here(seen.end);
            let whole = seen.start / WIDTH * WIDTH..seen.end.next_multiple_of(WIDTH);
            let mut position = whole.start;
            while position < whole.end {
                if position + C * WIDTH <= whole.end {
                    self.scores::<S, R, C>(position, &seen, scores);
                    position += C * WIDTH;
                } else {
                    self.scores::<S, R, 1>(position, &seen, scores);
                    position += WIDTH;
                }
            }
            for r in 0..R {
                let row = self.rows.get_unchecked(r);
                let first = row.first.clamp(whole.start, whole.end) - whole.start;
                let end = row.end.clamp(whole.start, whole.end) - whole.start;
                let begin = r * PARTITION + whole.start - self.begin;
                let scores = scores.get_unchecked_mut(begin..begin + whole.len());
                let visible = first..end.max(first);
                let bias = match row.bias.is_null() || visible.is_empty() {
                    true => &[],
                    false => std::slice::from_raw_parts(row.bias.add(whole.start + first), visible.len()),
                };
                let (max, weights) = weigh(scores, visible, self.soft_cap, bias);
                let record = self.records.add(r * record(self.dim) + self.dim);
                record.write(max);
                record.add(1).write(weights);
            }
            let mut column = 0;
            while column < self.dim {
                if column + C * WIDTH <= self.dim {
                    self.values::<S, R, C>(column, &seen, scores);
                    column += C * WIDTH;
                } else {
                    self.values::<S, R, 1>(column, &seen, scores);
                    column += WIDTH;
                }
            }
        }
    }

    /// Scores of `C` vectors of positions.
    #[inline(always)]
    unsafe fn scores<S: Simd, const R: usize, const C: usize>(
        &self,
        position: usize,
        seen: &Range<usize>,
        scores: &mut [f32; ROWS * PARTITION],
    ) {
        // SAFETY: passed on; the partition has room for the positions.
        unsafe {
            let mut queries = [std::ptr::null(); R];
            for (query, row) in queries.iter_mut().zip(self.rows) {
                *query = row.query;
            }
            let mut keys = [std::ptr::null(); C];
            for (c, key) in keys.iter_mut().enumerate() {
                *key = self.pages.key(position + c * WIDTH).cast_const();
            }
            let more = position + C * WIDTH < seen.end;
            let next = if more { self.pages.key(position + C * WIDTH) } else { self.pages.value(seen.start) };
            let mut sums = [[S::zero(); C]; R];
            add_products::<S, E, R, C>(&mut sums, queries, keys, WIDTH, self.dim, next);
            for (r, sums) in sums.into_iter().enumerate() {
                for (c, sum) in sums.into_iter().enumerate() {
                    sum.store(scores.as_mut_ptr().add(r * PARTITION + position - self.begin + c * WIDTH));
                }
            }
        }
    }

    /// Weighted values of `C` vectors of columns.
    #[inline(always)]
    unsafe fn values<S: Simd, const R: usize, const C: usize>(
        &self,
        column: usize,
        seen: &Range<usize>,
        weights: &[f32; ROWS * PARTITION],
    ) {
        // SAFETY: passed on; positions of a page are `dim` elements apart.
        unsafe {
            let mut sums = [[S::zero(); C]; R];
            let mut position = seen.start;
            while position < seen.end {
                let end = ((position / PAGE + 1) * PAGE).min(seen.end);
                let mut rows = [std::ptr::null(); R];
                for (r, row) in rows.iter_mut().enumerate() {
                    *row = weights.as_ptr().add(r * PARTITION + position - self.begin);
                }
                let mut values = [std::ptr::null(); C];
                for (c, value) in values.iter_mut().enumerate() {
                    *value = self.pages.value(position).add(column + c * WIDTH).cast_const();
                }
                let next = if end < seen.end { self.pages.value(end) } else { self.after };
                let next = next.wrapping_add(column * PAGE);
                add_products::<S, E, R, C>(&mut sums, rows, values, self.dim, end - position, next);
                position = end;
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (c, sum) in sums.into_iter().enumerate() {
                    sum.store(self.records.add(r * record(self.dim) + column + c * WIDTH));
                }
            }
        }
    }
}

/// `sums[r][c] += sum over i < count of a[r][i] * b[c][i * stride..][..16]`, one after the other. As much is fetched
/// from `next` on, which need not be valid, as is read: memory would be waited for with each page.
#[inline(always)]
unsafe fn add_products<S: Simd, E: Element, const R: usize, const C: usize>(
    sums: &mut [[S; C]; R],
    a: [*const f32; R],
    b: [*const E; C],
    stride: usize,
    count: usize,
    next: *const E,
) {
    let mut local = *sums;
    for i in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            fetch_line(next.wrapping_add(i * C * WIDTH).cast());
            let mut vectors = [S::zero(); C];
            for (vector, b) in vectors.iter_mut().zip(b) {
                *vector = E::load(b.add(i * stride));
            }
            for (sums, a) in local.iter_mut().zip(a) {
                let factor = S::splat(*a.add(i));
                for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                    *sum = sum.add_product(factor, vector);
                }
            }
        }
    }
    *sums = local;
}

/// Turns scores, whole vectors of them, into weights relative to the largest visible one, zero where nothing is
/// visible. `bias` is of the visible ones, or empty. Returns that largest score and the sum of the weights.
#[inline(always)]
fn weigh(scores: &mut [f32], visible: Range<usize>, soft_cap: Option<f32>, bias: &[f32]) -> (f32, f32) {
    if let Some(cap) = soft_cap {
        let inverse = 1.0 / cap;
        for score in scores.iter_mut() {
            // tanh(x) = 1 - 2 / (1 + e^2x), whose error is small beside a cap.
            *score = cap * (1.0 - 2.0 / (1.0 + exp(2.0 * (*score * inverse))));
        }
    }
    scores[visible.clone()].iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
    scores[..visible.start].fill(f32::MIN);
    scores[visible.end..].fill(f32::MIN);
    let (vectors, _) = scores.as_chunks_mut::<WIDTH>();
    let mut largest = [f32::MIN; WIDTH];
    for vector in vectors.iter() {
        for (largest, &score) in largest.iter_mut().zip(vector) {
            *largest = if score > *largest { score } else { *largest };
        }
    }
    let max = largest.into_iter().fold(f32::MIN, |max, score| if score > max { score } else { max });
    let mut sums = [0.0f32; WIDTH];
    for vector in vectors {
        for (sum, score) in sums.iter_mut().zip(vector) {
            // Not `>`: what is not a number shall stay visible.
            *score = if *score <= f32::MIN { 0.0 } else { exp(*score - max) };
            *sum += *score;
        }
    }
    let mut half = WIDTH / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    (max, sums[0])
}

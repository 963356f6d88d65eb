//! Linear layer: `y = x W (+ residual) + adapters`, one range of columns at a time.
#![allow(unsafe_code)] // Rows that threads share; all bounds are checked at the beginning of a call.

use std::ops::Range;

use crate::{
    activations::Activations,
    format::TILE_COLUMNS,
    level::Level,
    lora::{self, AdapterRows},
    matrix::Matrix,
    product::{Product, Start},
    rows::Rows,
};

/// Columns after which adapters are added, while the outputs are in cache. Fewer if B of so many columns exceeds
/// `ADAPTED_BYTES`: it is prefetched before the weights of the same columns, and must stay in cache meanwhile.
const ADAPTED_COLUMNS: usize = 256;
const ADAPTED_COLUMNS_MIN: usize = 64;
const ADAPTED_BYTES: usize = 16 << 10;

/// Second products (`h B`) of the rows' adapters; rows in none of `adapter_rows` have no adapter.
#[derive(Clone, Copy)]
pub struct Adapters<'a> {
    /// Rows by adapter. No row is in two.
    pub adapter_rows: &'a [AdapterRows<'a>],
    /// First products (`x A`) by [`lora::hidden`]: a row for each row of the outputs.
    pub hidden: Rows<'a>,
    /// Called before `hidden` is read; waits until it is complete.
    pub ready: &'a (dyn Fn() + Sync),
    /// Rows by adapter of the next layer, whose A is prefetched meanwhile, each column its part.
    pub next: &'a [AdapterRows<'a>],
}

/// One multiplication, to be computed by several threads.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// The matrix.
    pub matrix: Matrix<'a>,
    /// The inputs.
    pub x: &'a Activations,
    /// Initial value of the outputs.
    pub start: Start<'a>,
    /// The rows' adapters.
    pub adapters: Option<Adapters<'a>>,
}

impl Linear<'_> {
    /// Range `part` of `parts` roughly equal ranges of columns, on boundaries that [`Linear::columns`] allows.
    pub fn range(&self, part: usize, parts: usize) -> Range<usize> {
        range(self.matrix.outputs(), part, parts)
    }

    /// Computes the columns `columns` of every row: `y[row, column]`, rows of `weights.outputs()` floats.
    ///
    /// Every output has the bits that it would have if its row were alone, whatever ranges are asked for, on every
    /// instruction set. To the product of the dequantised weights with the dequantised activations it is within
    /// `(blocks + 4) * 2^-23` of the sum of the absolute values of its blocks' terms, which is f32's rounding; the
    /// residual and the adapter add one rounding each, and one per rank.
    ///
    /// # Panics
    /// The range does not begin and end between tiles ([`Linear::range`] does), or shapes do not fit each other, or the CPU has
    /// not the level.
    ///
    /// # Safety
    /// No other thread uses the same cells of `y` at the same time, nor writes to the adapters' hidden rows.
    pub unsafe fn columns(&self, level: Level, columns: Range<usize>, y: Rows<'_>) {
        self.check(level, &columns, &y);
        let Some(adapters) = &self.adapters else {
            return self.product(level, columns.clone(), columns.end, y);
        };
        let column_bytes: usize = adapters.adapter_rows.iter().map(|rows| rows.adapter.column_bytes()).sum();
        let step = (ADAPTED_BYTES / column_bytes.max(1)).clamp(ADAPTED_COLUMNS_MIN, ADAPTED_COLUMNS);
        let mut begin = columns.start;
        while begin < columns.end {
            let end = (begin + step / TILE_COLUMNS * TILE_COLUMNS).min(columns.end);
            adapters.adapter_rows.iter().for_each(|rows| rows.adapter.fetch_columns(begin..end));
            adapters.next.iter().for_each(|rows| rows.adapter.fetch_hidden(begin..end, self.matrix.outputs()));
            self.product(level, begin..end, columns.end, y);
            (adapters.ready)();
            for rows in adapters.adapter_rows {
                // SAFETY: the cells are this thread's by the caller's promise; the level was checked.
                unsafe { lora::add_columns(level, rows, begin..end, adapters.hidden, y) };
            }
            begin = end;
        }
    }

    /// Computes all of `y`, `[rows, outputs]`, on this thread. As [`Linear::columns`].
    ///
    /// # Panics
    /// As [`Linear::columns`].
    pub fn all(&self, level: Level, y: &mut [f32]) {
        // SAFETY: `y` is borrowed exclusively; the hidden rows are only read, and their view outlives this call.
        unsafe { self.columns(level, 0..self.matrix.outputs(), Rows::new(y, self.matrix.outputs())) };
    }

    fn check(&self, level: Level, columns: &Range<usize>, y: &Rows<'_>) {
        let outputs = self.matrix.outputs();
        assert!(y.width() == outputs && columns.end <= outputs, "columns {columns:?} of {:?}", self.matrix);
        self.products(columns.clone()).for_each(|(product, columns)| product.check(level, &columns, y));
    }

    /// The product without adapters, after [`Linear::check`]. The columns from `columns.end` to `next` are computed next.
    fn product(&self, level: Level, columns: Range<usize>, next: usize, y: Rows<'_>) {
        for (product, part) in self.products(columns.clone()) {
            let next = (next - product.first).min(product.weights.outputs());
            product.columns(level, 0..self.x.rows(), part, next, y);
        }
    }

    /// Products of the parts of the matrix that have some of the columns, each with its own columns.
    fn products(&self, columns: Range<usize>) -> impl Iterator<Item = (Product<'_>, Range<usize>)> {
        self.matrix.parts().filter_map(move |(part, weights)| {
            let (begin, end) = (columns.start.max(part.start), columns.end.min(part.end));
            let product = Product { weights, first: part.start, x: self.x, start: self.start };
            (begin < end).then(|| (product, begin - part.start..end - part.start))
        })
    }
}

/// Range `part` of `parts` roughly equal ranges of so many columns, between tiles.
pub(crate) fn range(columns: usize, part: usize, parts: usize) -> Range<usize> {
    let tiles = columns.div_ceil(TILE_COLUMNS);
    let cut = |part: usize| (part * tiles / parts * TILE_COLUMNS).min(columns);
    cut(part)..cut(part + 1)
}

//! Matrix product: `y = x W (+ residual)`, one range of columns at a time, for linear layers and first products of
//! adapters.
#![allow(unsafe_code)] // Addresses of tiles, panels and rows; all bounds are checked at the beginning of a call.

use std::{ops::Range, ptr};

use crate::{
    activations::{Activations, PANEL, Panel},
    dispatch::Choice,
    format::{BLOCK, TILE_COLUMNS},
    isa::Pass,
    level::Level,
    pack::Weights,
    rows::Rows,
};

/// Bytes of quantised activations that stay cached while the weights of a range pass by: part of a level-2 cache.
const NEAR_BYTES_MAX: usize = 192 << 10;

/// Initial value of the outputs.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Zero.
    Zero,
    /// A residual with the shape of the outputs.
    Residual(&'a [f32]),
    /// The current content of the outputs.
    InPlace,
}

/// One product, to be computed by several threads.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) weights: Weights<'a>,
    /// Column of the outputs that is the first of the weights'.
    pub(crate) first: usize,
    pub(crate) x: &'a Activations,
    pub(crate) start: Start<'a>,
}

impl Product<'_> {
    /// Computes all columns of some rows; rows of `y` may be longer than the outputs.
    ///
    /// # Safety
    /// No other thread uses the same rows of `y` at the same time.
    pub(crate) unsafe fn rows(&self, level: Level, rows: Range<usize>, y: Rows<'_>) {
        assert!(rows.end <= self.x.rows() && matches!(self.start, Start::Zero), "rows {rows:?} of {:?}", self.weights);
        self.check(level, &(0..self.weights.outputs()), &y);
        let outputs = self.weights.outputs();
        self.columns(level, rows, 0..outputs, outputs, y);
    }

    /// Checks columns, shapes and level, which the rest of this file relies on.
    pub(crate) fn check(&self, level: Level, columns: &Range<usize>, y: &Rows<'_>) {
        let (weights, x) = (self.weights, self.x);
        assert!(level.is_available(), "this CPU has no {level:?}");
        assert!(x.inputs() == weights.inputs(), "{weights:?} cannot take rows of {}", x.inputs());
        let wide = y.width() >= self.first + weights.outputs();
        assert!(wide && y.len() >= x.rows(), "outputs of {weights:?} do not fit");
        let whole = |column: usize| column.is_multiple_of(TILE_COLUMNS) || column == weights.outputs();
        assert!(
            whole(columns.start) && whole(columns.end) && columns.end <= weights.outputs(),
            "columns {columns:?} of {weights:?} are not whole tiles of {TILE_COLUMNS}"
        );
        if let Start::Residual(residual) = self.start {
            assert!(residual.len() >= x.rows() * y.width(), "the residual of {weights:?} is too short");
        }
    }

    /// After [`Product::check`]. The columns from `columns.end` to `next` are computed next.
    pub(crate) fn columns(&self, level: Level, rows: Range<usize>, columns: Range<usize>, next: usize, y: Rows<'_>) {
        let panels = rows.start / PANEL..rows.end.div_ceil(PANEL);
        let near = (NEAR_BYTES_MAX / (PANEL * self.x.inputs().max(1))).max(1);
        for begin in panels.clone().step_by(near) {
            let end = (begin + near).min(panels.end);
            let rows = rows.start.max(begin * PANEL)..rows.end.min(end * PANEL);
            let mut column = columns.start;
            while column < columns.end {
                let width = TILE_COLUMNS.min(columns.end - column);
                let last = column + width == next;
                let mut ahead = Ahead::new(&self.weights, column / TILE_COLUMNS, last, rows.len());
                for panel in begin..end {
                    let panel = self.x.panel(panel);
                    let rows =
                        rows.start.saturating_sub(panel.begin)..rows.end.min(panel.begin + panel.rows) - panel.begin;
                    self.tile(level, rows, column..column + width, &panel, y, &mut ahead);
                }
                column += width;
            }
        }
    }

    /// One tile of weights against some rows of a panel.
    fn tile(
        &self,
        level: Level,
        rows: Range<usize>,
        columns: Range<usize>,
        panel: &Panel,
        y: Rows<'_>,
        ahead: &mut Ahead,
    ) {
        let weights = self.weights;
        let (format, shape) = (weights.format(), weights.shape());
        let mut row = rows.start;
        while row < rows.end {
            let choice = Choice::of(level, format, rows.end - row);
            let output = y.row(panel.begin + row);
            let _last_row = y.row(panel.begin + row + choice.rows - 1);
            let mut piece = 0;
            while piece < columns.len() {
                let begin = self.first + columns.start + piece;
                // SAFETY: the tile is one of the weights', `row..row + choice.rows` are rows of the panel, of `y` and
                // of the residual, and the columns of the piece are ones of theirs, all by `check` and the callers;
                // that the CPU has the level was checked there too.
                unsafe {
                    let tile = weights.as_ptr().add(columns.start / TILE_COLUMNS * shape.bytes);
                    let (lines, step) = ahead.next(choice.rows, choice.columns, shape.blocks);
                    (choice.kernel)(&Pass {
                        blocks: shape.blocks,
                        lane: piece,
                        scales: tile,
                        offsets: tile.add(shape.offsets),
                        quants: tile.add(shape.quants + piece * 4),
                        x: panel.quants.add(row * BLOCK),
                        meta: panel.meta.add(row),
                        units: panel.units.add(row),
                        panel_rows: panel.rows,
                        y: output.add(begin),
                        y_stride: y.width(),
                        residual: match self.start {
                            Start::Zero => ptr::null(),
                            Start::InPlace => output.add(begin).cast_const(),
                            Start::Residual(residual) => residual.as_ptr().add((panel.begin + row) * y.width() + begin),
                        },
                        columns: columns.len() - piece,
                        ahead: lines,
                        ahead_step: step,
                    });
                }
                piece += choice.columns;
            }
            row += choice.rows;
        }
    }
}

/// Data of the next tile to prefetch during the passes over this one, evenly spread.
struct Ahead {
    next: *const u8,
    bytes: usize,
    cells: usize,
    done: usize,
}

impl Ahead {
    fn new(weights: &Weights<'_>, tile: usize, last: bool, rows: usize) -> Self {
        let bytes = weights.shape().bytes;
        let next = weights.as_ptr().wrapping_add((tile + 1) * bytes);
        Self { next, bytes: if last { 0 } else { bytes }, cells: rows * TILE_COLUMNS, done: 0 }
    }

    /// Start of a pass's part of the prefetch, and its bytes for each block.
    fn next(&mut self, rows: usize, columns: usize, blocks: usize) -> (*const u8, usize) {
        let begin = self.bytes * self.done / self.cells;
        self.done += rows * columns;
        let end = self.bytes * self.done.min(self.cells) / self.cells;
        (self.next.wrapping_add(begin), (end - begin).div_ceil(blocks))
    }
}

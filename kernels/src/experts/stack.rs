//! Stack: the matrices of all experts, one after the other.
#![allow(unsafe_code)] // Rows that threads share; all bounds are checked at the beginning of a call.

use std::ops::Range;

use crate::{
    activations::{Activations, Quantizer},
    format::{Format, TILE_COLUMNS},
    level::Level,
    pack::Weights,
    product::{Product, Start},
    rows::Rows,
    rowwise::dots,
    source_error::SourceError,
};

/// Matrices of all experts, `[outputs, inputs]` each.
#[derive(Clone, Copy)]
pub struct Stack<'a> {
    inputs: usize,
    outputs: usize,
    weights: Numbers<'a>,
}

#[derive(Clone, Copy)]
enum Numbers<'a> {
    /// Bytes of [`Packed`](crate::Packed) matrices of one format.
    Packed(Format, &'a [u8]),
    /// Row-major.
    F32(&'a [f32]),
}

impl<'a> Stack<'a> {
    /// `count` packed matrices of one format.
    ///
    /// # Errors
    /// The bytes do not fit the shape.
    pub fn packed(
        format: Format,
        count: usize,
        [inputs, outputs]: [usize; 2],
        bytes: &'a [u8],
    ) -> Result<Self, SourceError> {
        check("packed bytes of all experts", bytes.len(), format.packed_len(inputs, outputs), count)?;
        Ok(Self { inputs, outputs, weights: Numbers::Packed(format, bytes) })
    }

    /// `count` matrices of floats.
    ///
    /// # Errors
    /// The floats do not fit the shape.
    pub fn f32(count: usize, [inputs, outputs]: [usize; 2], floats: &'a [f32]) -> Result<Self, SourceError> {
        check("weights of all experts", floats.len(), inputs.saturating_mul(outputs), count)?;
        Ok(Self { inputs, outputs, weights: Numbers::F32(floats) })
    }

    /// Inputs of a matrix.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs of a matrix.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs for [`Stack::multiply`]: `floats`, or these quantised.
    pub(super) fn rows<'r>(&self, floats: Rows<'r>, quantized: &'r mut Activations, rows: usize) -> RowsIn<'r> {
        let quantizer = match self.weights {
            Numbers::Packed(..) => Some(quantized.reshape(rows, self.inputs)),
            Numbers::F32(_) => None,
        };
        RowsIn { floats, quantizer }
    }

    /// Computes the columns `columns` of rows `rows` of `y` with the matrix of `expert`. The source of row `i` in floats is
    /// `source(i)`.
    ///
    /// # Safety
    /// All these rows of `x` are complete, and no other thread uses the same cells of `y`.
    pub(super) unsafe fn multiply(
        &self,
        level: Level,
        expert: usize,
        (x, source): (&RowsIn<'_>, &(dyn Fn(usize) -> usize + Sync)),
        (rows, columns): (Range<usize>, Range<usize>),
        y: Rows<'_>,
    ) {
        let Self { inputs, outputs, weights } = *self;
        match (weights, &x.quantizer) {
            (Numbers::Packed(format, bytes), Some(quantizer)) => {
                let len = format.packed_len(inputs, outputs);
                let weights = Weights::view(format, inputs, outputs, &bytes[expert * len..][..len]);
                // SAFETY: complete, by the caller's promise.
                let x = unsafe { quantizer.filled() };
                assert!(rows.end <= x.rows(), "rows {rows:?} of {}", x.rows());
                let product = Product { weights, first: 0, x, start: Start::Zero };
                product.check(level, &columns, &y);
                product.columns(level, rows, columns.clone(), columns.end, y);
            }
            (Numbers::F32(floats), _) => {
                let matrix = &floats[expert * inputs * outputs..][..inputs * outputs];
                // A few columns for all rows, so that their weights stay near.
                for begin in columns.clone().step_by(TILE_COLUMNS) {
                    let columns = begin..(begin + TILE_COLUMNS).min(columns.end);
                    let weights = &matrix[columns.start * inputs..columns.end * inputs];
                    for row in rows.clone() {
                        // SAFETY: the input is complete, and the cells are this thread's, by the caller's promise.
                        unsafe { dots(level, weights, x.floats.read(source(row)), y.cells_mut(row, columns.clone())) };
                    }
                }
            }
            (Numbers::Packed(..), None) => {}
        }
    }
}

/// Input rows of a stack.
pub(super) struct RowsIn<'a> {
    pub(super) floats: Rows<'a>,
    quantizer: Option<Quantizer<'a>>,
}

impl RowsIn<'_> {
    /// Quantises rows, each from the row of floats that `source` names, if the weights are quantised.
    ///
    /// # Safety
    /// No other thread fills these rows, and the floats are complete.
    pub(super) unsafe fn quantize(&self, level: Level, rows: Range<usize>, source: &dyn Fn(usize) -> usize) {
        let Some(quantizer) = &self.quantizer else { return };
        for row in rows {
            // SAFETY: passed on.
            unsafe { quantizer.one(level, row, self.floats.read(source(row))) };
        }
    }
}

fn check(what: &'static str, got: usize, matrix: usize, count: usize) -> Result<(), SourceError> {
    let want = matrix.saturating_mul(count);
    if got != want || want == 0 { Err(SourceError::Size { what, got, want }) } else { Ok(()) }
}
